//! A bounded run of steps of equal length; what is added within one step is merged.

use std::collections::VecDeque;

/// What can be merged into a longer step.
pub(super) trait Accumulate: Clone {
    /// Takes in what came after it within the same step.
    fn merge(&mut self, later: &Self);
}

/// The last steps, oldest first.
pub(super) struct Ring<T> {
    step_seconds: i64,
    kept_max: usize,
    /// With the number of the step: its end divided by its length, rounded up.
    steps: VecDeque<(i64, T)>,
}

impl<T> Ring<T> {
    pub fn new(step_seconds: i64, kept_max: usize) -> Self {
        Self {
            step_seconds,
            kept_max,
            steps: VecDeque::new(),
        }
    }

    pub fn step_seconds(&self) -> i64 {
        self.step_seconds
    }
}

impl<T: Accumulate> Ring<T> {
    /// Adds what was the case in the time that ended at `at`. A step that is too old for the ring
    /// goes.
    pub fn add(&mut self, at: i64, value: &T) {
        let number =
            at.div_euclid(self.step_seconds) + i64::from(at.rem_euclid(self.step_seconds) != 0);
        match self.steps.back_mut() {
            Some((last, step)) if *last == number => step.merge(value),
            _ => self.steps.push_back((number, value.clone())),
        }
        let oldest = number - self.kept_max as i64;
        while self
            .steps
            .front()
            .is_some_and(|(first, _)| *first <= oldest)
        {
            self.steps.pop_front();
        }
    }

    /// Each step with the time of its end.
    pub fn steps(&self) -> impl Iterator<Item = (i64, &T)> {
        self.steps
            .iter()
            .map(|(number, step)| (number * self.step_seconds, step))
    }

    pub fn last(&self) -> Option<(i64, &T)> {
        self.steps
            .back()
            .map(|(number, step)| (number * self.step_seconds, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Accumulate for u32 {
        fn merge(&mut self, later: &Self) {
            *self += later;
        }
    }

    #[test]
    fn steps_are_merged_and_the_oldest_go() {
        let mut ring = Ring::new(10, 3);
        for at in [1, 10, 11, 20, 21, 50] {
            ring.add(at, &1_u32);
        }
        // The step that ended at 20 is more than three steps old.
        assert_eq!(
            ring.steps().map(|(at, n)| (at, *n)).collect::<Vec<_>>(),
            [(30, 1), (50, 1)]
        );
        assert_eq!(ring.last(), Some((50, &1)));
    }
}
