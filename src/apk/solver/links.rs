//! Lists, one for each name, laid one after the other in memory: an index has so many names that a vector for each costs
//! more than what is done with them.

pub(super) type NameId = usize;

/// A list for each name.
#[derive(Debug)]
pub(super) struct Links<T> {
    /// Where the list of a name begins; one more than there are names.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Links<T> {
    /// Gives each of `count` names its items, in their order. There are fewer than 2^32 of them: an index is no larger.
    pub fn gather(count: usize, items: &[(NameId, T)]) -> Self {
        let mut starts = vec![0u32; count + 1];
        for (name, _) in items {
            starts[name + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let Some((_, first)) = items.first() else { return Self { starts, items: Vec::new() } };
        let mut laid = vec![*first; items.len()];
        for (name, item) in items {
            laid[next[*name] as usize] = *item;
            next[*name] += 1;
        }
        Self { starts, items: laid }
    }

    /// The list of one name.
    pub fn of(&self, name: NameId) -> &[T] {
        &self.items[self.starts[name] as usize..self.starts[name + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_the_order_of_its_items() {
        let links = Links::gather(4, &[(2, 'a'), (0, 'b'), (2, 'c'), (3, 'd')]);
        assert_eq!(
            [0, 1, 2, 3].map(|name| links.of(name).to_vec()),
            [vec!['b'], vec![], vec!['a', 'c'], vec!['d']]
        );
        assert!(Links::<char>::gather(1, &[]).of(0).is_empty());
    }
}
