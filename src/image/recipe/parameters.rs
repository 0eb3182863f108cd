//! Parameters: declared by recipes, set by recipes that extend those, and last by `fleet.toml`, which wins.
//!
//! In one image a name is one parameter: recipes that declare it differently, or set it differently, are in conflict.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use crate::base::Label;
use crate::base::problem::{Problem, Read, ReadRef, suggest};
use crate::fleet::{GivenParameter, ParameterValue};

use super::Parameters;
use super::load::Loaded;
use super::schema::{ParameterKind, ParameterSection};

/// What a parameter may be.
#[derive(Clone, Debug, PartialEq)]
struct Declaration {
    kind: ParameterKind,
    default: Option<ParameterValue>,
    min: Option<i64>,
    max: Option<i64>,
    choices: Option<Vec<String>>,
}

/// A declaration and whose it is: recipe by position, and the place of its name.
struct DeclaredParameter {
    what: Declaration,
    recipe: usize,
    place: Range<usize>,
}

/// Values of all parameters, by name.
pub(super) struct ParameterValues {
    values: BTreeMap<String, ParameterValue>,
    owners: BTreeMap<String, Label>,
}

impl ParameterValues {
    /// The parameters that a recipe sees: its own, and those of the recipes that it extends.
    pub(super) fn seen_by(&self, recipe: &Loaded) -> BTreeMap<String, ParameterValue> {
        let sees = |owner: &Label| *owner == recipe.name || recipe.extends.contains(owner);
        let seen = self.values.iter().filter(|(name, _)| self.owners.get(*name).is_some_and(sees));
        seen.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// All of them.
    pub(super) fn into_all(self) -> BTreeMap<String, ParameterValue> {
        self.values
    }
}

/// Finds the value of every parameter. What is wrong is told with the recipes; what is wrong with `given` comes back.
pub(super) fn resolve(recipes: &mut [Loaded], given: &Parameters) -> (ParameterValues, Vec<Problem>) {
    let declared = declarations(recipes);
    let mut values = BTreeMap::new();
    for (name, parameter) in &declared {
        values.extend(parameter.what.default.clone().map(|default| (name.clone(), default)));
    }
    values.extend(set(recipes, &declared));
    let mut problems = Vec::new();
    for (name, GivenParameter { place, value }) in given {
        let checked = match declared.get(name) {
            None => {
                Err(Problem::new(place.clone(), format!("no recipe of this image has a parameter `{name}`"))
                    .hint(suggest("parameters of its recipes", name, declared.keys().map(String::as_str))))
            }
            Some(parameter) => check(name, &parameter.what, value),
        };
        match checked {
            Ok(()) => drop(values.insert(name.clone(), value.get_ref().clone())),
            Err(problem) => problems.push(problem),
        }
    }
    for (name, parameter) in declared.iter().filter(|(name, _)| !values.contains_key(*name)) {
        if given.contains_key(name) {
            continue;
        }
        let problem = Problem::new(parameter.place.clone(), format!("parameter `{name}` has no value"))
            .hint(format!("set it below the [image] of fleet.toml, as in parameters = {{ {name} = ... }}"));
        recipes[parameter.recipe].problems.report(problem);
    }
    let owners = declared.iter().map(|(name, one)| (name.clone(), recipes[one.recipe].name.clone()));
    (ParameterValues { owners: owners.collect(), values }, problems)
}

fn declarations(recipes: &mut [Loaded]) -> BTreeMap<String, DeclaredParameter> {
    let mut found: BTreeMap<String, DeclaredParameter> = BTreeMap::new();
    for at in 0..recipes.len() {
        let Ok(file) = &recipes[at].file else { continue };
        let Ok(parameters) = file.parameters.clone() else { continue };
        for (name, section) in parameters.iter() {
            let Ok(section) = section else { continue };
            let place = name.span();
            let name = name.get_ref().0.clone();
            let what = match declaration(&name, section) {
                Ok(what) => what,
                Err(problem) => {
                    if let Some(problem) = problem {
                        recipes[at].problems.report(problem);
                    }
                    continue;
                }
            };
            match found.get(&name) {
                Some(first) if first.what != what => {
                    let (first, second) = (&recipes[first.recipe].name, &recipes[at].name);
                    let problem = Problem::new(
                        place,
                        format!("recipes {first} and {second} declare the parameter `{name}` differently"),
                    );
                    let problem = problem.hint("give one of the two another name");
                    recipes[at].problems.report(problem);
                }
                Some(_) => {}
                None => drop(found.insert(name, DeclaredParameter { what, recipe: at, place })),
            }
        }
    }
    found
}

/// Reads a declaration; a problem that was told already is `None`.
fn declaration(name: &str, section: &ParameterSection) -> Result<Declaration, Option<Problem>> {
    fn told<T>(read: &Read<T>) -> Result<&T, Option<Problem>> {
        read.by_ref().map_err(|_| None)
    }
    told(&section.description)?;
    let default = told(&section.default)?.as_ref();
    let kind = match (told(&section.kind)?, default) {
        (Some(kind), _) => *kind,
        (None, Some(default)) => ParameterKind::of(default.get_ref()),
        (None, None) => {
            let problem = Problem::new(section.place.clone(), format!("parameter `{name}` has no type"));
            return Err(Some(problem.hint("give it a `default`, or a `type` where it must be set")));
        }
    };
    let (min, max) = (told(&section.min)?.map(|min| min.0), told(&section.max)?.map(|max| max.0));
    let choices: Option<Vec<String>> = match told(&section.choices)? {
        None => None,
        Some(list) => Some(list.iter().cloned().collect::<Read<_>>().map_err(|_| None)?),
    };
    let wrong = |message: String| Err(Some(Problem::new(section.place.clone(), message)));
    if (min.is_some() || max.is_some()) && kind != ParameterKind::Integer {
        return wrong(format!("`min` and `max` are for integers, and `{name}` is {}", kind.words()));
    }
    if choices.is_some() && !matches!(kind, ParameterKind::String | ParameterKind::List) {
        return wrong(format!("`choices` are for strings and lists, and `{name}` is {}", kind.words()));
    }
    let what = Declaration { kind, default: default.map(|value| value.get_ref().clone()), min, max, choices };
    if let Some(default) = default {
        check(name, &what, default).map_err(Some)?;
    }
    Ok(what)
}

/// What recipes set of the parameters of those that they extend.
fn set(
    recipes: &mut [Loaded],
    declared: &BTreeMap<String, DeclaredParameter>,
) -> BTreeMap<String, ParameterValue> {
    let mut values: BTreeMap<String, (ParameterValue, Label)> = BTreeMap::new();
    for at in 0..recipes.len() {
        let Ok(file) = &recipes[at].file else { continue };
        let Ok(entries) = file.set.clone() else { continue };
        for (name, value) in entries.iter() {
            let Ok(value) = value else { continue };
            let checked = set_one(recipes, at, name.get_ref().0.as_str(), name.span(), value, declared);
            let checked = checked.and_then(|()| match values.get(&name.get_ref().0) {
                Some((other, by)) if other != value.get_ref() => {
                    let (name, second) = (&name.get_ref().0, &recipes[at].name);
                    Err(Problem::new(
                        value.span(),
                        format!("recipes {by} and {second} set the parameter `{name}` differently"),
                    )
                    .hint("fleet.toml can set it only if they agree, or if one of them does not set it"))
                }
                _ => Ok(()),
            });
            match checked {
                Ok(()) => {
                    let value = (value.get_ref().clone(), recipes[at].name.clone());
                    values.insert(name.get_ref().0.clone(), value);
                }
                Err(problem) => drop(recipes[at].problems.report(problem)),
            }
        }
    }
    values.into_iter().map(|(name, (value, _))| (name, value)).collect()
}

fn set_one(
    recipes: &[Loaded],
    at: usize,
    name: &str,
    place: Range<usize>,
    value: &Spanned<ParameterValue>,
    declared: &BTreeMap<String, DeclaredParameter>,
) -> Result<(), Problem> {
    let recipe = &recipes[at];
    let is_below = |one: &DeclaredParameter| recipe.extends.contains(&recipes[one.recipe].name);
    match declared.get(name) {
        Some(parameter) if is_below(parameter) => check(name, &parameter.what, value),
        Some(parameter) if parameter.recipe == at => {
            Err(Problem::new(place, format!("`{name}` is a parameter of this recipe itself"))
                .hint("change its `default`"))
        }
        _ => {
            let known = declared.iter().filter(|(_, one)| is_below(one)).map(|(name, _)| name.as_str());
            Err(Problem::new(place, format!("no recipe that this one extends has a parameter `{name}`"))
                .hint(suggest("parameters of extended recipes", name, known)))
        }
    }
}

/// Looks whether a parameter may have a value.
fn check(name: &str, what: &Declaration, value: &Spanned<ParameterValue>) -> Result<(), Problem> {
    let place = value.span();
    let found = ParameterKind::of(value.get_ref());
    if found != what.kind {
        let (wanted, found) = (what.kind.words(), found.words());
        return Err(Problem::new(place, format!("parameter `{name}` must be {wanted}, and this is {found}")));
    }
    let one_of = |text: &str| match &what.choices {
        Some(choices) if !choices.iter().any(|choice| choice == text) => Err(Problem::new(
            value.span(),
            format!("parameter `{name}` cannot be {text:?}"),
        )
        .hint(suggest("choices", text, choices.iter().map(String::as_str)))),
        _ => Ok(()),
    };
    match value.get_ref() {
        ParameterValue::Integer(number)
            if what.min.is_some_and(|min| *number < min) || what.max.is_some_and(|max| *number > max) =>
        {
            let bound = match (what.min, what.max) {
                (Some(min), Some(max)) => format!("from {min} to {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, max) => format!("at most {}", max.unwrap_or(i64::MAX)),
            };
            Err(Problem::new(place, format!("parameter `{name}` is {bound}, and this is {number}")))
        }
        ParameterValue::Text(text) => one_of(text),
        ParameterValue::List(texts) => texts.iter().try_for_each(|text| one_of(text)),
        ParameterValue::Integer(_) | ParameterValue::Boolean(_) => Ok(()),
    }
}
