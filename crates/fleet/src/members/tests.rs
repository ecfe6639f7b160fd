//! The machine, driven without IO and with a clock of its own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use monofs_model::view::Role;
use monofs_model::{Member, MemberState, NodeId};
use proptest::prelude::*;

use super::{
    AuditFinding, DepartureIntent, MemberCommand, MemberEvent, MemberMachine, MemberTimes,
    keeps_copies,
};
use crate::settings::StaticMember;

const SECOND: Duration = Duration::from_secs(1);
const THRESHOLD: Duration = Duration::from_secs(6);

fn id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn fixed(name: &str, named: bool, address: &str) -> StaticMember {
    StaticMember {
        id: id(name),
        named,
        role: Role::Node,
        address: address.to_owned(),
        external_address: String::new(),
        weight: 1.0,
        zone: String::new(),
    }
}

fn member(name: &str, address: &str, incarnation: u64) -> Member {
    Member {
        incarnation,
        ..fixed(name, true, address).member()
    }
}

/// A machine, its clock, and the view that follows from its commands.
struct Rig {
    machine: MemberMachine,
    now: Instant,
    view: BTreeMap<NodeId, Member>,
}

impl Rig {
    fn new(members: &[StaticMember]) -> Self {
        let settings = MemberTimes {
            threshold: THRESHOLD,
            recovery_time: 4 * SECOND,
            recovery_shares: vec![10, 25, 50, 75],
        };
        let now = Instant::now();
        let machine = MemberMachine::new(settings, members, 0, now).unwrap();
        let view = machine
            .members()
            .map(|known| (known.member.id.clone(), known.member.clone()))
            .collect();
        Self { machine, now, view }
    }

    /// One event; what it shows goes into the view, whose number must grow if and only if there is
    /// something.
    fn step(&mut self, event: MemberEvent) -> Vec<MemberCommand> {
        let before = self.machine.number();
        let commands = self.machine.step(event, self.now);
        let mut changes = 0;
        for command in &commands {
            match command {
                MemberCommand::Show(member) => {
                    drop(self.view.insert(member.id.clone(), member.clone()))
                }
                MemberCommand::Hide(id) => drop(self.view.remove(id)),
                _ => continue,
            }
            changes += 1;
        }
        assert_eq!(self.machine.number(), before + changes, "{commands:?}");
        let tracked: BTreeMap<_, _> = self
            .machine
            .members()
            .map(|known| (known.member.id.clone(), known.member.clone()))
            .collect();
        let without_use = |view: &BTreeMap<NodeId, Member>| -> Vec<Member> {
            view.values()
                .map(|member| Member {
                    used_bytes: 0,
                    ..member.clone()
                })
                .collect()
        };
        assert_eq!(
            without_use(&self.view),
            without_use(&tracked),
            "the commands tell everything"
        );
        assert!(
            self.machine.due().is_none_or(|due| due > self.now),
            "what is due has been done"
        );
        commands
    }

    /// Lets time pass, stopping at everything that is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.due().filter(|due| *due <= end) {
            self.now = due;
            self.step(MemberEvent::Tick);
        }
        self.now = end;
        self.step(MemberEvent::Tick);
    }

    fn announce(&mut self, incarnation: u64) -> Vec<MemberCommand> {
        self.step(MemberEvent::Announced(member("n", "n:1", incarnation)))
    }

    /// Keeps answering for a while.
    fn answer_for(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.pass(SECOND);
            self.step(MemberEvent::Answered(id("n")));
        }
    }

    fn audit(&mut self, incarnation: Option<u64>, behind: bool) {
        self.step(MemberEvent::Audited(
            id("n"),
            Some(AuditFinding {
                incarnation,
                behind,
            }),
        ));
    }

    fn shown(&self) -> String {
        let member = &self.view[&id("n")];
        let share = if member.share_percent == 100 {
            String::new()
        } else {
            format!(" {} %", member.share_percent)
        };
        format!(
            "{}{share}{}",
            member.state.as_str(),
            if member.failed_over {
                " failed over"
            } else {
                ""
            }
        )
    }
}

/// What happens, and what the node is then.
type Script = &'static [(fn(&mut Rig), &'static str)];

#[test]
fn every_transition() {
    let scripts: &[(&str, Script)] = &[
        (
            "a new node is active at once, suspect after half the threshold, down after all of it",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| rig.pass(THRESHOLD / 2 - SECOND), "active"),
                (|rig| rig.pass(SECOND), "suspect"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "active",
                ),
                (|rig| rig.pass(THRESHOLD - SECOND), "suspect"),
                (|rig| rig.pass(SECOND), "down"),
                (|rig| rig.pass(1000 * SECOND), "down"),
            ],
        ),
        (
            "what comes back recovers until it was asked and has caught up; then its reads return \
             in steps",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| rig.audit(Some(1), false), "active"),
                (|rig| rig.pass(THRESHOLD), "down"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "recovering",
                ),
                (|rig| rig.audit(None, true), "recovering"),
                (
                    |rig| drop(rig.step(MemberEvent::ReturnNoted(id("n")))),
                    "recovering",
                ),
                (|rig| rig.audit(Some(1), true), "recovering"),
                (|rig| rig.audit(Some(1), false), "active 10 %"),
                (|rig| rig.answer_for(SECOND), "active 25 %"),
                (|rig| rig.answer_for(SECOND), "active 50 %"),
                (|rig| rig.answer_for(SECOND), "active 75 %"),
                (|rig| rig.answer_for(SECOND), "active"),
            ],
        ),
        (
            "a restart that no probe missed is noticed by its incarnation",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| rig.audit(Some(1), false), "active"),
                (|rig| drop(rig.announce(2)), "recovering"),
                (|rig| rig.audit(Some(2), true), "recovering"),
                (|rig| rig.audit(Some(2), false), "active 10 %"),
            ],
        ),
        (
            "a member of before is suspect until it is heard of, and goes down when it is not",
            &[
                (
                    |rig| drop(rig.step(MemberEvent::Loaded(member("n", "n:1", 1)))),
                    "suspect",
                ),
                (|rig| rig.audit(Some(1), false), "suspect"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "active",
                ),
                (|rig| rig.pass(THRESHOLD), "down"),
            ],
        ),
        (
            "one that another router registered joins, and is down if it is never heard of",
            &[
                (
                    |rig| {
                        drop(rig.step(MemberEvent::Registered(
                            id("n"),
                            Some(member("n", "n:1", 1)),
                        )))
                    },
                    "joining",
                ),
                (|rig| rig.pass(THRESHOLD), "down"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "active",
                ),
            ],
        ),
        (
            "a report makes a member suspect when a probe fails too, until it answers",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| drop(rig.step(MemberEvent::Failed(id("n")))), "active"),
                (
                    |rig| {
                        assert_eq!(
                            rig.step(MemberEvent::Reported(id("n"))),
                            [MemberCommand::Probe(id("n"))]
                        )
                    },
                    "active",
                ),
                (
                    |rig| drop(rig.step(MemberEvent::Failed(id("n")))),
                    "suspect",
                ),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "active",
                ),
                (|rig| drop(rig.step(MemberEvent::Failed(id("n")))), "active"),
            ],
        ),
        (
            "a drained node serves, also after a restart, and recovers when it is undrained",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| rig.audit(Some(1), false), "active"),
                (
                    |rig| {
                        drop(rig.step(MemberEvent::Intent(
                            id("n"),
                            Some(DepartureIntent::Drain { emptied: false }),
                        )))
                    },
                    "draining",
                ),
                (|rig| drop(rig.announce(2)), "draining"),
                (
                    |rig| {
                        drop(rig.step(MemberEvent::Intent(
                            id("n"),
                            Some(DepartureIntent::Drain { emptied: true }),
                        )))
                    },
                    "draining",
                ),
                (|rig| rig.audit(Some(2), true), "drained"),
                (|rig| rig.pass(THRESHOLD), "down"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "draining",
                ),
                (
                    |rig| drop(rig.step(MemberEvent::ReturnNoted(id("n")))),
                    "drained",
                ),
                (
                    |rig| drop(rig.step(MemberEvent::Intent(id("n"), None))),
                    "recovering",
                ),
                (|rig| rig.audit(Some(2), false), "active 10 %"),
            ],
        ),
        (
            "a node that is failed over is active and asked last, whatever else happens to it",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (|rig| rig.audit(Some(1), false), "active"),
                (
                    |rig| {
                        drop(rig.step(MemberEvent::Intent(
                            id("n"),
                            Some(DepartureIntent::Failover),
                        )))
                    },
                    "active failed over",
                ),
                (|rig| rig.pass(THRESHOLD / 2), "suspect failed over"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "active failed over",
                ),
                (|rig| rig.audit(Some(1), true), "active failed over"),
                (
                    |rig| drop(rig.step(MemberEvent::Intent(id("n"), None))),
                    "recovering",
                ),
                (|rig| rig.audit(Some(1), false), "active 10 %"),
            ],
        ),
        (
            "during maintenance no member goes down, and silence counts anew after it",
            &[
                (|rig| drop(rig.announce(1)), "active"),
                (
                    |rig| drop(rig.step(MemberEvent::Maintenance(true))),
                    "active",
                ),
                (|rig| rig.pass(100 * THRESHOLD), "suspect"),
                (
                    |rig| drop(rig.step(MemberEvent::Maintenance(false))),
                    "suspect",
                ),
                (|rig| rig.pass(THRESHOLD - SECOND), "suspect"),
                (|rig| rig.pass(SECOND), "down"),
                (|rig| drop(rig.step(MemberEvent::Maintenance(true))), "down"),
                (
                    |rig| drop(rig.step(MemberEvent::Answered(id("n")))),
                    "recovering",
                ),
            ],
        ),
    ];
    for (name, script) in scripts {
        let mut rig = Rig::new(&[]);
        for (number, (happens, then)) in script.iter().enumerate() {
            happens(&mut rig);
            assert_eq!(rig.shown(), *then, "{name}: step {number}");
        }
    }
}

#[test]
fn a_fetcher_holds_nothing_to_recover() {
    let mut rig = Rig::new(&[]);
    let fetcher = Member {
        role: Role::Fetcher,
        ..member("n", "n:1", 1)
    };
    rig.step(MemberEvent::Announced(fetcher.clone()));
    rig.pass(THRESHOLD);
    assert_eq!(rig.shown(), "down");
    let back = rig.step(MemberEvent::Announced(fetcher));
    assert_eq!(rig.shown(), "active");
    assert!(
        !back
            .iter()
            .any(|command| matches!(command, MemberCommand::NoteReturn(_))),
        "{back:?}"
    );
}

#[test]
fn only_what_matters_changes_the_view_and_is_recorded() {
    let mut rig = Rig::new(&[]);
    let first = rig.announce(1);
    assert!(
        first.contains(&MemberCommand::Record(member("n", "n:1", 1))),
        "{first:?}"
    );
    rig.step(MemberEvent::Registered(
        id("n"),
        Some(member("n", "n:1", 1)),
    ));
    let number = rig.machine.number();
    let fuller = Member {
        used_bytes: 7,
        ..member("n", "n:1", 1)
    };
    assert_eq!(rig.step(MemberEvent::Announced(fuller)), []);
    assert_eq!(
        (
            rig.machine.number(),
            rig.machine.get(&id("n")).unwrap().member.used_bytes
        ),
        (number, 7)
    );
    let elsewhere = Member {
        external_address: "out:1".into(),
        ..member("n", "n:1", 1)
    };
    let moved = rig.step(MemberEvent::Announced(elsewhere.clone()));
    assert!(
        moved.contains(&MemberCommand::Record(elsewhere)),
        "{moved:?}"
    );
}

#[test]
fn a_member_named_by_its_address_is_there_once() {
    for announces_first in [true, false] {
        let mut rig = Rig::new(&[fixed("pod-0.svc", false, "pod-0.svc:9000")]);
        rig.step(MemberEvent::Answered(id("pod-0.svc")));
        assert_eq!(
            rig.view[&id("pod-0.svc")].state,
            MemberState::Joining,
            "it has not said what it calls itself"
        );
        // It calls itself pod-0 and announces an address that only its own host knows.
        let announced = MemberEvent::Announced(member("pod-0", "pod-0:9000", 5));
        let identified = MemberEvent::Identified {
            asked: id("pod-0.svc"),
            id: id("pod-0"),
            incarnation: 5,
            version: String::new(),
        };
        let (first, second) = if announces_first {
            (announced, identified)
        } else {
            (identified, announced)
        };
        rig.step(first);
        rig.step(second);
        let shown: Vec<_> = rig
            .view
            .values()
            .map(|m| (m.id.as_str(), m.address.as_str(), m.state))
            .collect();
        assert_eq!(shown, [("pod-0", "pod-0.svc:9000", MemberState::Active)]);
    }
    let mut rig = Rig::new(&[fixed("a", false, "a:1")]);
    rig.step(MemberEvent::Announced(member("node1", "a:1", 1)));
    assert_eq!(
        rig.view.keys().collect::<Vec<_>>(),
        [&id("node1")],
        "the same address"
    );
    let mut rig = Rig::new(&[fixed("a", false, "a:1")]);
    rig.step(MemberEvent::Loaded(member("node1", "a:1", 1)));
    assert_eq!(
        rig.view.keys().collect::<Vec<_>>(),
        [&id("node1")],
        "known from before"
    );
}

#[test]
fn an_id_belongs_to_one_process() {
    let mut rig = Rig::new(&[]);
    rig.announce(1);
    rig.step(MemberEvent::Registered(
        id("n"),
        Some(member("n", "n:1", 1)),
    ));
    let twin = member("n", "other:1", 2);
    assert!(
        rig.machine
            .admit(&twin, rig.now)
            .unwrap_err()
            .message
            .contains("runs at n:1")
    );
    rig.machine
        .admit(&member("n", "n:1", 2), rig.now)
        .expect("a restart at the same address");
    rig.pass(THRESHOLD / 2);
    rig.machine
        .admit(&twin, rig.now)
        .expect("the first one is gone");
    let fetcher = Member {
        role: Role::Fetcher,
        ..member("n", "n:1", 3)
    };
    assert!(rig.machine.admit(&fetcher, rig.now).is_err());
}

#[test]
fn an_answer_counts_for_who_is_at_the_address_now() {
    let mut rig = Rig::new(&[]);
    rig.announce(1);
    rig.step(MemberEvent::Announced(member("renamed", "n:1", 2)));
    for _ in 0..6 {
        rig.pass(SECOND);
        rig.step(MemberEvent::Answered(id("n")));
        rig.step(MemberEvent::Answered(id("renamed")));
    }
    assert_eq!(
        (rig.shown().as_str(), rig.view[&id("renamed")].state),
        ("down", MemberState::Active)
    );
}

#[test]
fn removed_members_are_forgotten_but_for_those_of_the_command_line() {
    let mut rig = Rig::new(&[fixed("fixed", true, "f:1")]);
    for (name, address) in [("n", "n:1"), ("fixed", "f:1")] {
        rig.step(MemberEvent::Announced(member(name, address, 1)));
        rig.step(MemberEvent::Registered(
            id(name),
            Some(member(name, address, 1)),
        ));
        rig.step(MemberEvent::Registered(id(name), None));
    }
    assert_eq!(rig.view.keys().collect::<Vec<_>>(), [&id("fixed")]);
}

#[test]
fn a_node_that_is_down_keeps_its_copies_for_the_delay() {
    let delay = Duration::from_secs(600);
    let down = |gone| keeps_copies(MemberState::Down, gone, delay);
    assert!(down(Some(Duration::from_secs(599))));
    assert!(!down(Some(delay)));
    assert!(!down(None), "it was never heard of");
    for (state, kept) in [
        (MemberState::Active, true),
        (MemberState::Suspect, true),
        (MemberState::Recovering, true),
        (MemberState::Joining, false),
        (MemberState::Draining, false),
        (MemberState::Drained, false),
    ] {
        assert_eq!(keeps_copies(state, None, Duration::ZERO), kept, "{state:?}");
    }
}

fn any_event() -> impl Strategy<Value = MemberEvent> {
    let name = || prop::sample::select(vec!["a", "b", "c", "p.svc"]).prop_map(id);
    let member = (prop::sample::select(vec!["a", "b", "c"]), 1u8..4, 0u64..3)
        .prop_map(|(name, at, incarnation)| member(name, &format!("h{at}:1"), incarnation));
    let intent = prop::option::of(prop_oneof![
        any::<bool>().prop_map(|emptied| DepartureIntent::Drain { emptied }),
        Just(DepartureIntent::Failover)
    ]);
    let audit = prop::option::of((prop::option::of(0u64..3), any::<bool>()).prop_map(
        |(incarnation, behind)| AuditFinding {
            incarnation,
            behind,
        },
    ));
    prop_oneof![
        3 => member.clone().prop_map(MemberEvent::Announced),
        1 => member.clone().prop_map(MemberEvent::Loaded),
        3 => name().prop_map(MemberEvent::Answered),
        2 => name().prop_map(MemberEvent::Failed),
        1 => name().prop_map(MemberEvent::Reported),
        1 => (name(), name(), 0u64..3).prop_map(|(asked, id, incarnation)| MemberEvent::Identified {
            asked,
            id,
            incarnation,
            version: String::new()
        }),
        2 => (name(), prop::option::of(member)).prop_map(|(id, member)| match member {
            Some(member) => MemberEvent::Registered(member.id.clone(), Some(member)),
            None => MemberEvent::Registered(id, None),
        }),
        1 => (name(), intent).prop_map(|(id, intent)| MemberEvent::Intent(id, intent)),
        2 => (name(), audit).prop_map(|(id, audit)| MemberEvent::Audited(id, audit)),
        1 => name().prop_map(MemberEvent::ReturnNoted),
        1 => any::<bool>().prop_map(MemberEvent::Maintenance),
        1 => Just(MemberEvent::Tick),
    ]
}

proptest! {
    /// Whatever happens: the view's number and the view follow the commands (checked in every
    /// step), silence ends in down, unless there is maintenance, and a member that is heard of and has
    /// nothing recorded against it is active in the end.
    #[test]
    fn no_history_leaves_a_member_stuck(history in prop::collection::vec((any_event(), 0u64..4000), 1..80)) {
        let mut rig = Rig::new(&[fixed("a", true, "h1:1"), fixed("p.svc", false, "h2:1")]);
        for (event, pause) in history {
            rig.step(event);
            rig.pass(Duration::from_millis(pause));
        }
        let mut silent = Rig { machine: rig.machine, ..rig };
        silent.step(MemberEvent::Maintenance(true));
        silent.pass(10 * THRESHOLD);
        for member in silent.view.values() {
            prop_assert!(
                matches!(member.state, MemberState::Suspect | MemberState::Down | MemberState::Joining),
                "{member:?}"
            );
        }
        let downs = |rig: &Rig| rig.view.values().filter(|member| member.state == MemberState::Down).count();
        let before = downs(&silent);
        silent.pass(10 * THRESHOLD);
        prop_assert_eq!(downs(&silent), before, "no member goes down during maintenance");
        silent.step(MemberEvent::Maintenance(false));
        silent.pass(THRESHOLD);
        prop_assert_eq!(downs(&silent), silent.view.len());
        prop_assert!(silent.machine.due().is_none(), "nothing is left to wait for");
        // All come back.
        for name in ["a", "b", "c"] {
            let at = format!("back-{name}:1");
            silent.step(MemberEvent::Announced(member(name, &at, 9)));
            silent.step(MemberEvent::ReturnNoted(id(name)));
            silent.step(MemberEvent::Intent(id(name), None));
            silent.step(MemberEvent::Audited(id(name), Some(AuditFinding { incarnation: Some(9), behind: false })));
        }
        for _ in 0..6 {
            silent.pass(SECOND);
            for name in ["a", "b", "c"] {
                silent.step(MemberEvent::Answered(id(name)));
            }
        }
        for name in ["a", "b", "c"] {
            let member = &silent.view[&id(name)];
            prop_assert_eq!((member.state, member.share_percent, member.failed_over), (MemberState::Active, 100, false));
        }
    }
}
