//! The destinations of one config.

use std::collections::HashMap;
use std::sync::Arc;

use super::Target;
use crate::base::Name;

/// The destinations of one config, in its order. A later config has another such list, with the same targets where it
/// has the same destinations.
#[derive(Clone, Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    places: HashMap<Name, usize>,
}

impl Targets {
    /// The one called `name`.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Arc<Target>> {
        self.places.get(name).and_then(|place| self.all.get(*place))
    }

    /// All of them, in the config's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.all.iter()
    }
}

impl FromIterator<Arc<Target>> for Targets {
    fn from_iter<I: IntoIterator<Item = Arc<Target>>>(targets: I) -> Self {
        let all: Vec<_> = targets.into_iter().collect();
        let places = all.iter().enumerate().map(|(place, target)| (target.name.clone(), place)).collect();
        Self { all, places }
    }
}
