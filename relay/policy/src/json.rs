//! JSON to values of the component model and back, by the types of a component's function.

use serde_json::{Map, Value};
use wasmtime::component::Val;
use wasmtime::component::types::Type;

/// The value of a type that a JSON value is: objects are records with names as in WIT, where what is missing is none,
/// empty, zero or the first case; a variant is its case's name, or an object of that one key.
///
/// # Errors
/// In words, where it is none.
pub(crate) fn to_val(json: &Value, ty: &Type) -> Result<Val, String> {
    let no = |what: &str| Err(format!("{json} is no {what}"));
    let number = || json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from));
    macro_rules! int {
        ($kind:ident) => {
            match number().and_then(|n| n.try_into().ok()) {
                Some(n) => Ok(Val::$kind(n)),
                None => no(concat!("number of type ", stringify!($kind))),
            }
        };
    }
    match ty {
        Type::Bool => json.as_bool().map_or_else(|| no("truth value"), |b| Ok(Val::Bool(b))),
        Type::U8 => int!(U8),
        Type::U16 => int!(U16),
        Type::U32 => int!(U32),
        Type::U64 => int!(U64),
        Type::S8 => int!(S8),
        Type::S16 => int!(S16),
        Type::S32 => int!(S32),
        Type::S64 => int!(S64),
        Type::String => json.as_str().map_or_else(|| no("text"), |text| Ok(Val::String(text.to_owned()))),
        Type::Option(_) if json.is_null() => Ok(Val::Option(None)),
        Type::Option(inner) => Ok(Val::Option(Some(Box::new(to_val(json, &inner.ty())?)))),
        Type::List(list) => match json.as_array() {
            Some(items) => Ok(Val::List(items.iter().map(|item| to_val(item, &list.ty())).collect::<Result<_, _>>()?)),
            None => no("list"),
        },
        Type::Tuple(tuple) => match json.as_array().filter(|items| items.len() == tuple.types().len()) {
            Some(items) => {
                let vals = items.iter().zip(tuple.types()).map(|(item, ty)| to_val(item, &ty));
                Ok(Val::Tuple(vals.collect::<Result<_, _>>()?))
            }
            None => no("tuple of that length"),
        },
        Type::Enum(names) => match json.as_str().filter(|name| names.names().any(|known| known == *name)) {
            Some(name) => Ok(Val::Enum(name.to_owned())),
            None => no(&format!("one of {:?}", names.names().collect::<Vec<_>>())),
        },
        Type::Record(record) => match json.as_object() {
            Some(object) => {
                let fields: Vec<_> = record.fields().map(|field| (field.name.to_owned(), field.ty)).collect();
                to_record(object, &fields)
            }
            None => no("record"),
        },
        Type::Variant(variant) => {
            to_variant(json, variant.cases().map(|case| (case.name.to_owned(), case.ty)).collect())
        }
        _ => no("value of a type that policies have"),
    }
}

fn to_record(object: &Map<String, Value>, fields: &[(String, Type)]) -> Result<Val, String> {
    if let Some(unknown) = object.keys().find(|key| fields.iter().all(|(name, _)| name != *key)) {
        return Err(format!(
            "{unknown:?} is no field; there are {:?}",
            fields.iter().map(|(n, _)| n).collect::<Vec<_>>()
        ));
    }
    let val = |(name, ty): &(String, Type)| {
        let val = match object.get(name) {
            Some(value) => to_val(value, ty).map_err(|error| format!("{name}: {error}"))?,
            None => blank(ty)?,
        };
        Ok::<_, String>((name.clone(), val))
    };
    Ok(Val::Record(fields.iter().map(val).collect::<Result<_, _>>()?))
}

fn to_variant(json: &Value, cases: Vec<(String, Option<Type>)>) -> Result<Val, String> {
    let (name, payload) = match json {
        Value::String(name) => (name, None),
        Value::Object(object) if object.len() == 1 => match object.iter().next() {
            Some((name, payload)) => (name, Some(payload)),
            None => return Err("an empty object is no variant".to_owned()),
        },
        other => return Err(format!("{other} is no variant: say \"case\" or {{\"case\": value}}")),
    };
    let Some((_, ty)) = cases.iter().find(|(known, _)| known == name) else {
        return Err(format!("{name:?} is none of {:?}", cases.iter().map(|(known, _)| known).collect::<Vec<_>>()));
    };
    let payload = match (ty, payload) {
        (None, None) => None,
        (Some(ty), Some(payload)) => Some(Box::new(to_val(payload, ty).map_err(|error| format!("{name}: {error}"))?)),
        (Some(ty), None) => Some(Box::new(blank(ty)?)),
        (None, Some(_)) => return Err(format!("{name:?} has no value")),
    };
    Ok(Val::Variant(name.clone(), payload))
}

/// What a field is that a case does not mention.
fn blank(ty: &Type) -> Result<Val, String> {
    Ok(match ty {
        Type::Option(_) => Val::Option(None),
        Type::List(_) => Val::List(Vec::new()),
        Type::String => Val::String(String::new()),
        Type::Bool => Val::Bool(false),
        Type::Record(_) => return to_val(&Value::Object(Map::new()), ty),
        Type::Enum(names) => Val::Enum(names.names().next().unwrap_or_default().to_owned()),
        Type::Variant(variant) => {
            let first = variant.cases().next().map(|case| (case.name.to_owned(), case.ty));
            let (name, ty) = first.ok_or("a variant without cases")?;
            Val::Variant(name, ty.map(|ty| blank(&ty)).transpose()?.map(Box::new))
        }
        Type::Tuple(tuple) => Val::Tuple(tuple.types().map(|ty| blank(&ty)).collect::<Result<_, _>>()?),
        number => return to_val(&Value::from(0), number),
    })
}

/// The JSON of a value.
pub(crate) fn from_val(val: &Val) -> Value {
    let list = |vals: &[Val]| Value::Array(vals.iter().map(from_val).collect());
    match val {
        Val::Bool(b) => Value::from(*b),
        Val::U8(n) => Value::from(*n),
        Val::U16(n) => Value::from(*n),
        Val::U32(n) => Value::from(*n),
        Val::U64(n) => Value::from(*n),
        Val::S8(n) => Value::from(*n),
        Val::S16(n) => Value::from(*n),
        Val::S32(n) => Value::from(*n),
        Val::S64(n) => Value::from(*n),
        Val::String(text) | Val::Enum(text) => Value::from(text.as_str()),
        Val::List(vals) | Val::Tuple(vals) => list(vals),
        Val::Option(inner) => inner.as_deref().map_or(Value::Null, from_val),
        Val::Record(fields) => Value::Object(fields.iter().map(|(name, val)| (name.clone(), from_val(val))).collect()),
        Val::Variant(name, None) => Value::from(name.as_str()),
        Val::Variant(name, Some(payload)) => Value::Object(Map::from_iter([(name.clone(), from_val(payload))])),
        _ => Value::Null,
    }
}

/// Where an answer does not hold what is expected: objects have at least these keys, lists are of the same length.
pub(crate) fn difference(expected: &Value, found: &Value, at: &str) -> Option<String> {
    let differs =
        || Some(format!("{}: expected {expected}, found {found}", if at.is_empty() { "the answer" } else { at }));
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .find_map(|(key, value)| difference(value, found.get(key).unwrap_or(&Value::Null), &format!("{at}/{key}"))),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let both = expected.iter().zip(found).enumerate();
            both.into_iter().find_map(|(i, (expected, found))| difference(expected, found, &format!("{at}/{i}")))
        }
        _ if expected == found => None,
        _ => differs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_answer_may_say_more_than_is_expected_and_not_less() {
        let found = json(r#"{"deny": {"code": "forbidden", "tags": ["a", "b"]}}"#);
        assert_eq!(difference(&json(r#"{"deny": {"code": "forbidden"}}"#), &found, ""), None);
        for (expected, at) in [
            (r#"{"deny": {"code": "quota"}}"#, "/deny/code"),
            (r#"{"deny": {"tags": ["a"]}}"#, "/deny/tags"),
            (r#"{"allow": {}}"#, "/allow"),
        ] {
            let difference = difference(&json(expected), &found, "").unwrap();
            assert!(difference.starts_with(at), "{difference}");
        }
    }
}
