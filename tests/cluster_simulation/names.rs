//! Names in `global`: each is held by one process, goes to another at times, and is not always known everywhere.

use std::sync::Arc;

use kvnode::etf::Pid;
use kvnode::replica::SlaveName;

use super::world::World;

/// A name in `global`.
pub struct GlobalName {
    pub name: Arc<str>,
    /// The node whose store has it from its start on, where nobody else has it then.
    pub home: usize,
    pub holder: Option<Pid>,
    /// The holder before.
    before: Option<Pid>,
}

impl GlobalName {
    pub fn new(home: usize) -> Self {
        Self { name: format!("g{home}").into(), home, holder: None, before: None }
    }

    pub fn slave_name(&self) -> SlaveName {
        SlaveName::global(&self.name)
    }
}

impl World {
    fn global(&self, name: &SlaveName) -> Option<usize> {
        self.globals.iter().position(|global| global.slave_name() == *name)
    }

    /// The node whose store has a name in `global` now.
    pub fn holder_of(&self, name: &SlaveName) -> Option<usize> {
        let holder = self.globals[self.global(name)?].holder.as_ref()?;
        Some(self.node_named(&holder.node))
    }

    /// A name of a node's store in `global`, if it has one.
    pub fn global_name_of(&self, node: usize) -> Option<SlaveName> {
        let name = &self.nodes[node].name;
        let is_its = |holder: &Pid| *holder.node == **name;
        let global = self.globals.iter().find(|global| global.holder.as_ref().is_some_and(is_its));
        global.map(GlobalName::slave_name)
    }

    /// A node has started: those of its names that nobody has are its store's.
    pub fn claim_names(&mut self, node: usize) {
        for global in 0..self.globals.len() {
            if self.globals[global].home == node && self.globals[global].holder.is_none() {
                self.give_name(global, node);
            }
        }
    }

    /// A node has ended.
    pub fn lose_names(&mut self, node: usize) {
        let name = Arc::clone(&self.nodes[node].name);
        for global in &mut self.globals {
            if let Some(holder) = global.holder.take_if(|holder| *holder.node == *name) {
                global.before = Some(holder);
            }
        }
    }

    fn lose_name(&mut self, global: usize) {
        if let Some(holder) = self.globals[global].holder.take() {
            let holds = self.node_named(&holder.node);
            self.life(holds).registry.release_global(&self.globals[global].name);
            self.globals[global].before = Some(holder);
        }
    }

    /// A name goes to a node's store.
    pub fn give_name(&mut self, global: usize, node: usize) {
        let name = Arc::clone(&self.globals[global].name);
        self.lose_name(global);
        let life = self.life(node);
        // A pid has one name in `global`: so a kvnode's store has a pid for each. A process of a BEAM has but one.
        let process = match self.nodes[node].is_beam {
            true => Arc::clone(&life.store),
            false => life.registry.spawn_sibling(&life.store).expect("it is alive"),
        };
        life.registry.claim_global(&name, &process).expect("nobody has it");
        tracing::info!(node, %name, "has a name");
        self.globals[global].holder = Some(process.pid.clone());
    }

    /// A name goes to a node's store, or is lost.
    pub fn move_name(&mut self, node: usize) {
        if !self.globals.is_empty() {
            let global = self.random.index(self.globals.len());
            if self.random.one_in(3) {
                return self.lose_name(global);
            }
            let is_held_here = self.globals[global].holder.as_ref();
            if is_held_here.is_none_or(|holder| *holder.node != *self.nodes[node].name) {
                self.counts.moves += 1;
                self.give_name(global, node);
            }
        }
    }

    /// What somebody who asks for a name is told: some nodes know of the last change late, or have lost it.
    pub fn whereis_global(&mut self, name: &SlaveName) -> Option<Pid> {
        let global = self.global(name)?;
        let chance = if self.is_calm { 9 } else { self.random.below(10) };
        let global = &self.globals[global];
        match chance {
            0 => None,
            1 | 2 => global.before.clone(),
            _ => global.holder.clone(),
        }
    }

    /// All holders that nodes know of.
    pub fn global_holders(&mut self, name: &SlaveName) -> Vec<Pid> {
        let both = !self.is_calm && self.random.one_in(4);
        let one = self.whereis_global(name);
        let other = if both { self.whereis_global(name) } else { None };
        one.into_iter().chain(other).collect()
    }

    /// Every name has a holder, which all know.
    pub fn calm_names(&mut self) {
        self.is_calm = true;
        for global in 0..self.globals.len() {
            if self.globals[global].holder.is_none() {
                self.give_name(global, self.globals[global].home);
            }
        }
    }
}
