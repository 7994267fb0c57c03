//! Objects that are too large to be told at once, mostly groups: first what is small of them, then the values of each large attribute in
//! parts, one object with the same uid after the other.

use tidewaiter_connector::{Attribute, Object, Value, ValueMode};

/// What the contract adds to the bytes of each value, attribute and object.
const OVERHEAD: usize = 16;

/// The object, or what it is told as where it has more than so many bytes. What one value makes too large stays so.
pub(crate) fn pieces(mut object: Object, bytes_max: u64) -> Vec<Object> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    // Room for what a delta has beside its object.
    let bytes_max = bytes_max - bytes_max / 8;
    if object.attributes.iter().map(size).sum::<usize>() <= bytes_max {
        return vec![object];
    }
    // The largest first, until the rest is small enough.
    let mut attributes = std::mem::take(&mut object.attributes);
    let mut bytes: usize = attributes.iter().map(size).sum();
    let mut by_size: Vec<usize> = (0..attributes.len()).filter(|place| attributes[*place].values.len() > 1).collect();
    by_size.sort_by_key(|place| std::cmp::Reverse(size(&attributes[*place])));
    by_size.retain(|place| {
        let is_large = bytes > bytes_max;
        bytes -= if is_large { size(&attributes[*place]) } else { 0 };
        is_large
    });
    by_size.sort_unstable();
    let large: Vec<Attribute> = by_size.into_iter().rev().map(|place| attributes.remove(place)).collect();
    object.attributes = attributes;
    let (uid, name) = (object.uid.clone(), object.name.clone());
    let mut pieces = vec![object];
    let mut push = |attribute: &str, values: Vec<Value>| {
        let part = Attribute::new(attribute, values, ValueMode::Part);
        pieces.push(Object::new(&uid, &name).with_attribute(part));
    };
    for Attribute { name: attribute, values, .. } in large {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for value in values {
            bytes += size_of(&value);
            if bytes > bytes_max / 2 && !part.is_empty() {
                push(&attribute, std::mem::take(&mut part));
                bytes = size_of(&value);
            }
            part.push(value);
        }
        push(&attribute, part);
    }
    pieces
}

fn size(attribute: &Attribute) -> usize {
    attribute.name.len() + OVERHEAD + attribute.values.iter().map(size_of).sum::<usize>()
}

fn size_of(value: &Value) -> usize {
    OVERHEAD
        + match value {
            Value::Text(text) | Value::Decimal(text) | Value::Timestamp(text) | Value::Json(text) => text.len(),
            Value::Binary(bytes) | Value::Secret(bytes) => bytes.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_groups_are_told_in_parts_that_have_everything_once() {
        let members: Vec<String> = (0..10_000).map(|n| format!("uid=person{n},ou=people,dc=example,dc=com")).collect();
        let group = Object::new("u", "n").with("cn", "all").with("member", members.clone()).with("seeAlso", ["x", "y"]);
        let pieces = pieces(group.clone(), 100_000);
        assert!(pieces.len() > 5, "{}", pieces.len());
        assert_eq!(pieces[0], Object::new("u", "n").with("cn", "all").with("seeAlso", ["x", "y"]));
        let mut told = Vec::new();
        for piece in &pieces[1..] {
            assert_eq!((piece.uid.as_str(), piece.name.as_str(), piece.attributes.len()), ("u", "n", 1));
            assert_eq!(piece.attributes[0].mode, ValueMode::Part);
            assert!(size(&piece.attributes[0]) < 100_000);
            told.extend(piece.get("member").unwrap().iter().cloned());
        }
        assert_eq!(told, members.into_iter().map(Value::Text).collect::<Vec<_>>());
        assert_eq!(super::pieces(group.clone(), 1 << 20), [group]);
    }

    #[test]
    fn several_that_are_too_large_together_are_told_apart_too() {
        let values: Vec<String> = (0..100).map(|n| format!("{n:0200}")).collect();
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let object = names.iter().fold(Object::new("u", "n"), |object, name| object.with(*name, values.clone()));
        let pieces = pieces(object, 100_000);
        assert!(pieces.iter().all(|piece| piece.attributes.iter().map(size).sum::<usize>() <= 100_000));
        let told: usize =
            pieces.iter().flat_map(|piece| &piece.attributes).map(|attribute| attribute.values.len()).sum();
        assert_eq!(told, 700);
        assert!(pieces[0].attributes.iter().all(|attribute| attribute.mode == ValueMode::Whole));
    }

    #[test]
    fn one_value_that_is_too_large_stays_whole() {
        let photo = Object::new("u", "n").with("cn", "x").with("photo", Value::Binary(vec![0; 1000]));
        assert_eq!(pieces(photo.clone(), 500), [photo]);
    }
}
