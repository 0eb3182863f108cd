//! Reads a spanned TOML document into typed sections without stopping at the first mistake.
//!
//! A section is declared once, by [`section!`]: from that one list of fields come the struct, its reader,
//! its known keys and its part of the JSON Schema, so that these cannot disagree.

use std::borrow::Cow;
use std::ops::Range;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::InvalidValue;
use crate::base::problem::{Problem, Problems, Read, Reported, nearest, suggest};

/// A value of the document, and where it stands.
pub type Value<'i> = Spanned<DeValue<'i>>;

/// A list, each of its elements with its place.
pub type List<T> = Vec<Read<Spanned<T>>>;

/// What can stand in a `fleet.toml` or a `recipe.toml`.
pub trait FromToml: Sized {
    /// Whether the key of such a value must be there.
    const REQUIRED: bool = true;

    /// Reads a value; whatever is wrong with it has been told when this returns.
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self>;

    /// Stands in for a value whose key is not there. `place` is the section that lacks it.
    fn if_missing(key: &str, place: &Range<usize>, problems: &mut Problems) -> Read<Self> {
        Err(problems.report(
            Problem::new(place.clone(), format!("`{key}` is missing")).label(format!("`{key}` belongs here")),
        ))
    }

    /// The values that are read, as JSON Schema.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// What a key of a free-form table is parsed into.
pub trait FromKey: Sized {
    /// Parses a key.
    fn from_key(key: &str) -> Result<Self, InvalidValue>;

    /// A regular expression that every key fulfils.
    const PATTERN: &'static str;
}

/// A table of fixed keys that is being read.
pub struct Section<'a, 'i> {
    pub place: Range<usize>,
    table: &'a DeTable<'i>,
    /// Keys that an unknown one was most likely meant to be: these are not told to be missing.
    mistyped: Vec<(String, Reported)>,
    problems: &'a mut Problems,
}

impl<'a, 'i> Section<'a, 'i> {
    /// Begins to read a table, and tells of each key that is not one of `known`.
    pub fn open(value: &'a Value<'i>, known: &[&str], problems: &'a mut Problems) -> Read<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let keys = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return Err(unexpected(value, &format!("a table of {keys}"), problems));
        };
        let mut mistyped = Vec::new();
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let told = problems.report(
                Problem::new(key.span(), format!("unknown key `{name}`"))
                    .label("not a key of this table")
                    .hint(suggest("keys of this table", name, known.iter().copied())),
            );
            mistyped.extend(nearest(name, known.iter().copied()).map(|meant| (meant.to_owned(), told)));
        }
        Ok(Self { place: value.span(), table, mistyped, problems })
    }

    /// Reads the value of a key.
    pub fn field<T: FromToml>(&mut self, key: &str) -> Read<T> {
        match (self.table.get(key), self.mistyped.iter().find(|(meant, _)| meant == key)) {
            (Some(value), _) => T::from_toml(value, self.problems),
            (None, Some((_, told))) => Err(*told),
            (None, None) => T::if_missing(key, &self.place, self.problems),
        }
    }
}

/// Tells that a value is of the wrong type.
pub fn unexpected(value: &Value<'_>, wanted: &str, problems: &mut Problems) -> Reported {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    problems.report(Problem::new(value.span(), format!("expected {wanted}, found {found}")))
}

impl<T: FromToml> FromToml for Spanned<T> {
    const REQUIRED: bool = T::REQUIRED;

    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        T::from_toml(value, problems).map(|inner| Spanned::new(value.span(), inner))
    }

    fn if_missing(key: &str, place: &Range<usize>, problems: &mut Problems) -> Read<Self> {
        T::if_missing(key, place, problems).map(|inner| Spanned::new(place.clone(), inner))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

impl<T: FromToml> FromToml for Option<T> {
    const REQUIRED: bool = false;

    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        T::from_toml(value, problems).map(Some)
    }

    fn if_missing(_: &str, _: &Range<usize>, _: &mut Problems) -> Read<Self> {
        Ok(None)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// A list keeps its place for an element that could not be read. One that is missing is empty.
impl<T: FromToml> FromToml for Vec<Read<T>> {
    const REQUIRED: bool = false;

    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::Array(array) => Ok(array.iter().map(|value| T::from_toml(value, problems)).collect()),
            _ => Err(unexpected(value, "an array", problems)),
        }
    }

    fn if_missing(_: &str, _: &Range<usize>, _: &mut Problems) -> Read<Self> {
        Ok(Self::new())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }
}

/// A table whose keys are names of the user's own. A name is known even where its value could not be read.
#[derive(Clone, Debug)]
pub struct Named<K, T>(pub Vec<(Spanned<K>, Read<T>)>);

impl<K, T> Named<K, T> {
    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&Spanned<K>, &Read<T>)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl<K: FromKey, T: FromToml> FromToml for Named<K, T> {
    const REQUIRED: bool = false;

    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(unexpected(value, "a table", problems));
        };
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let value = T::from_toml(value, problems);
            match K::from_key(key.get_ref()) {
                Ok(name) => entries.push((Spanned::new(key.span(), name), value)),
                Err(InvalidValue(rule)) => {
                    problems.report(Problem::new(key.span(), format!("{:?} {rule}", key.get_ref())));
                }
            }
        }
        Ok(Self(entries))
    }

    fn if_missing(_: &str, _: &Range<usize>, _: &mut Problems) -> Read<Self> {
        Ok(Self(Vec::new()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": K::PATTERN },
            "additionalProperties": T::schema(generator),
        })
    }
}

/// Schema of a section: what [`section!`] knows of each field.
pub struct FieldSchema {
    pub key: &'static str,
    pub required: bool,
    pub description: Cow<'static, str>,
    pub schema: Schema,
}

/// Schema of a table of fixed keys.
pub fn section_schema(description: &str, fields: Vec<FieldSchema>) -> Schema {
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.key).collect();
    let mut properties = Map::new();
    for field in &fields {
        let mut schema = field.schema.clone();
        // A description beside `$ref` is allowed since draft 2019-09.
        schema.insert("description".into(), Json::String(paragraph(&field.description)));
        properties.insert(field.key.into(), schema.to_value());
    }
    json_schema!({
        "type": "object",
        "description": paragraph(description),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Lines of a doc comment as one paragraph.
fn paragraph(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Declares a table of fixed keys: the struct, its reader, and its JSON Schema. Doc comments become the
/// schema's descriptions. Every field becomes a [`Read`], so that one wrong value hides no other. A key that is no name of
/// Rust is written behind the field: `kind as "type": String`. `with rest: Other` has the keys of another section in the same
/// table.
macro_rules! section {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident $(with $rest:ident: $rest_type:ty)? {
            $( $(#[doc = $field_doc:literal])+ $field:ident $(as $key:literal)?: $type:ty, )+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name {
            /// Where the table stands: its header, or its braces.
            #[allow(dead_code, reason = "not every section is pointed at")]
            pub place: std::ops::Range<usize>,
            $( $(#[doc = $field_doc])+ pub $field: Read<$type>, )+
            $( /// What stands in the same table.
            pub $rest: $rest_type, )?
        }

        #[allow(dead_code, reason = "not every section shares its keys")]
        impl $name {
            fn keys() -> Vec<&'static str> {
                [vec![$(key!($field $($key)?)),+], $( <$rest_type>::keys() )?].concat()
            }

            fn read(section: &mut Section<'_, '_>) -> Self {
                Self {
                    place: section.place.clone(),
                    $( $field: section.field(key!($field $($key)?)), )+
                    $( $rest: <$rest_type>::read(section), )?
                }
            }

            fn fields(generator: &mut schemars::SchemaGenerator) -> Vec<FieldSchema> {
                let own = vec![$( FieldSchema {
                    key: key!($field $($key)?),
                    required: <$type as FromToml>::REQUIRED,
                    description: concat!($($field_doc, "\n"),+).into(),
                    schema: <$type as FromToml>::schema(generator),
                } ),+];
                own.into_iter() $( .chain(<$rest_type>::fields(generator)) )? .collect()
            }
        }

        impl FromToml for $name {
            fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
                Section::open(value, &Self::keys(), problems).map(|mut section| Self::read(&mut section))
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                section_schema(concat!($($doc, "\n"),+), Self::fields(generator))
            }
        }
    )+ };
}
pub(crate) use section;

/// The key of a field of [`section!`].
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}
pub(crate) use key;

/// The JSON Schema of a whole file (draft 2020-12).
pub fn file_schema<T: schemars::JsonSchema>(title: &str) -> Json {
    let mut schema =
        schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.to_value()
}
