//! Named sets of countries.

use std::collections::BTreeMap;

/// Member states of the European Union.
const EU: &str = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK";

/// Those of the European Economic Area beside them.
const EEA_ONLY: &str = "IS LI NO";

/// Countries whose protection of personal data the European Commission has found adequate as a whole (GDPR, article
/// 45). Those whose decision holds for some recipients alone (Canada, the United States) are not among them.
const ADEQUATE_ONLY: &str = "AD AR CH FO GB GG IL IM JE JP KR NZ UY";

/// Sets by name. Three are known by themselves, and an operator may put others in their place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sets(BTreeMap<String, Vec<String>>);

impl Default for Sets {
    fn default() -> Self {
        let join = |parts: &[&str]| parts.iter().flat_map(|part| part.split(' ')).map(str::to_owned).collect();
        Sets(BTreeMap::from([
            ("EU".to_owned(), join(&[EU])),
            ("EEA".to_owned(), join(&[EU, EEA_ONLY])),
            ("adequate".to_owned(), join(&[EU, EEA_ONLY, ADEQUATE_ONLY])),
        ]))
    }
}

impl Sets {
    /// Puts a set of country codes in the place of the one of this name.
    pub fn insert(&mut self, name: String, countries: Vec<String>) {
        self.0.insert(name, countries);
    }

    /// Whether a country is in a set; `None`: there is no such set.
    pub fn contains(&self, set: &str, country: &str) -> Option<bool> {
        self.0.get(set).map(|countries| countries.iter().any(|code| code == country))
    }

    /// Whether there is such a set.
    pub fn has(&self, set: &str) -> bool {
        self.0.contains_key(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_set_is_not_an_empty_one() {
        let sets = Sets::default();
        assert_eq!(sets.contains("EU", "DE"), Some(true));
        assert_eq!(sets.contains("EU", "NO"), Some(false));
        assert_eq!(sets.contains("EEA", "NO"), Some(true));
        assert_eq!(sets.contains("adequate", "US"), Some(false));
        assert_eq!(sets.contains("EUU", "DE"), None);
    }

    #[test]
    fn an_operators_set_takes_the_place_of_a_known_one() {
        let mut sets = Sets::default();
        sets.insert("adequate".to_owned(), vec!["DE".to_owned()]);
        assert_eq!(sets.contains("adequate", "FR"), Some(false));
    }
}
