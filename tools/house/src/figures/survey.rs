//! A walk through the syntax of files that counts what the rules of the code speak of.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned as _;
use syn::visit::Visit;

use crate::sources;

/// Bodies from this length on are counted for comments.
const BODY_LINES_MIN: usize = 12;
/// Bodies over this length need a comment at each stage.
const BODY_LINES_UNMARKED_MAX: usize = 20;

/// Something that has a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: FindingKind,
    pub(super) file: String,
    pub(super) line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FindingKind {
    LongLine,
    TupleLet,
    LocalClosure,
    BoolParameter,
    UnmarkedBody,
}

impl FindingKind {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::LongLine => "line over 100 columns",
            Self::TupleLet => "tuple lets, `let (a, b) = (x, y)`,",
            Self::LocalClosure => "named local closures",
            Self::BoolParameter => "`bool` parameters of functions that other modules see",
            Self::UnmarkedBody => "bodies over 20 lines without a comment",
        }
    }
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) findings: Vec<Finding>,
    /// Lines of bodies of [`BODY_LINES_MIN`] and more, and the comments among them.
    pub(super) body_lines: usize,
    pub(super) comment_lines: usize,
    pub(super) largest_function: (usize, String),
    /// Each type's name with the files that declare it, one entry for each declaration.
    types: BTreeMap<String, Vec<String>>,
    file: String,
    /// Lines of the current file that are comments, counted from one.
    comments: BTreeSet<usize>,
    /// How many functions enclose the current place: only the outermost body is counted.
    depth: usize,
}

impl Survey {
    pub(super) fn begin_file(&mut self, file: &str, text: &str) {
        self.file = file.to_owned();
        let comments = (1..).zip(text.lines());
        let comments = comments.filter(|(_, line)| line.trim_start().starts_with("//"));
        self.comments = comments.map(|(number, _)| number).collect();
    }

    pub(super) fn add_at(&mut self, kind: FindingKind, file: &str, line: usize) {
        self.findings.push(Finding {
            kind,
            file: file.to_owned(),
            line,
        });
    }

    pub(super) fn count(&self, kind: FindingKind) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.kind == kind).count()
    }

    pub(super) fn type_count(&self) -> usize {
        self.types.values().map(Vec::len).sum()
    }

    pub(super) fn shared_type_count(&self) -> usize {
        self.shared_types().map(|(_, files)| files.len()).sum()
    }

    pub(super) fn one_word_type_count(&self) -> usize {
        let short = self.types.iter().filter(|(name, _)| word_count(name) == 1);
        short.map(|(_, files)| files.len()).sum()
    }

    /// Names that more than one declaration has, with the files of these.
    pub(super) fn shared_types(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.types.iter().filter(|(_, files)| files.len() > 1)
    }

    fn add_type(&mut self, name: &syn::Ident) {
        let files = self.types.entry(name.to_string()).or_default();
        files.push(self.file.clone());
    }

    fn add(&mut self, kind: FindingKind, at: impl syn::spanned::Spanned) {
        let file = self.file.clone();
        self.add_at(kind, &file, at.span().start().line);
    }

    /// Counts a function of `whole`, whose body is `block`.
    fn add_function(&mut self, whole: proc_macro2::Span, block: &syn::Block) {
        if self.depth > 0 {
            return;
        }
        let lines = whole.end().line - whole.start().line + 1;
        let place = format!("{}:{}", self.file, whole.start().line);
        self.largest_function = std::mem::take(&mut self.largest_function).max((lines, place));

        let span = block.span();
        let inner = span.start().line + 1..span.end().line;
        let comments = self.comments.range(inner.clone()).count();
        if inner.len() >= BODY_LINES_MIN {
            self.body_lines += inner.len();
            self.comment_lines += comments;
        }
        if inner.len() > BODY_LINES_UNMARKED_MAX && comments == 0 {
            self.add(FindingKind::UnmarkedBody, block);
        }
    }

    fn add_parameters(&mut self, visibility: &syn::Visibility, signature: &syn::Signature) {
        if let syn::Visibility::Inherited = visibility {
            return;
        }
        for input in &signature.inputs {
            if let syn::FnArg::Typed(input) = input
                && let syn::Type::Path(path) = &*input.ty
                && path.path.is_ident("bool")
            {
                self.add(FindingKind::BoolParameter, input);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Survey {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !sources::is_test_only(item) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add_parameters(&item.vis, &item.sig);
        self.add_function(item.span(), &item.block);
        self.depth += 1;
        syn::visit::visit_item_fn(self, item);
        self.depth -= 1;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add_parameters(&item.vis, &item.sig);
        self.add_function(item.span(), &item.block);
        self.depth += 1;
        syn::visit::visit_impl_item_fn(self, item);
        self.depth -= 1;
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add_type(&item.ident);
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add_type(&item.ident);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add_type(&item.ident);
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let value = local.init.as_ref().map(|init| &*init.expr);
        match (&local.pat, value) {
            (syn::Pat::Tuple(_), Some(syn::Expr::Tuple(_))) => {
                self.add(FindingKind::TupleLet, local);
            }
            (syn::Pat::Ident(_) | syn::Pat::Type(_), Some(syn::Expr::Closure(_))) => {
                self.add(FindingKind::LocalClosure, local);
            }
            _ => {}
        }
        syn::visit::visit_local(self, local);
    }
}

/// Words in a name like `RouterState`.
fn word_count(name: &str) -> usize {
    let letters: Vec<char> = name.chars().collect();
    let starts = letters.windows(2).filter(|pair| {
        // `StateX` and `XState` have a second word; `LMDB` and `X` do not.
        pair[0].is_lowercase() && pair[1].is_uppercase()
    });
    1 + starts.count()
}
