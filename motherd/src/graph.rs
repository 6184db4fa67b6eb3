//! Dependencies: names resolved, cycles refused naming every edge, and the order that is left.
//!
//! Whatever cannot be started with what it needs is refused here, with a diagnostic, and takes only those with it that
//! need it: the rest of the graph boots. Holding a [`Graph`] proves that everything that is required is there and that
//! all relations but `conflicts` together have no cycle; so recursion along them ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use sandbox::diagnostic::{Diagnostic, Located, Report, Severity};

use crate::{
    fnv::fnv,
    service::{Relation, Service},
};

/// One service among those of a [`Graph`]: an index, stable while services are only added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub(crate) usize);

/// What one service depends on, and who depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Edges {
    /// Must be up before it and while it runs: needs.
    pub needs: Vec<Id>,
    /// Must be up before it and at every moment after: what it is bound to, and its needs where it tolerates no restart.
    pub bonds: Vec<Id>,
    /// What is done before each of its starts.
    pub prepared_by: Vec<Id>,
    /// All that must be up before it starts: needs, milestones, what it is bound to and what prepares it.
    pub requires: Vec<Id>,
    /// Started too; settled before it.
    pub wants: Vec<Id>,
    /// Settled before it, if they are on their way: whom it is after, and who is before it.
    pub after: Vec<Id>,
    /// Never up together with it, whichever of the two files says so.
    pub conflicts: Vec<Id>,
    /// All that comes before it: requires, wants and after.
    pub earlier: Vec<Id>,
    /// Who comes later than it. They stop first.
    pub later: Vec<Id>,
    /// Who cannot start without it.
    pub required_by: Vec<Id>,
    /// Who cannot run without it: who needs it, is bound to it or is prepared by it.
    pub sustains: Vec<Id>,
    /// Who cannot run at any moment without it.
    pub bonded: Vec<Id>,
    /// Whom it prepares.
    pub prepares: Vec<Id>,
    /// Who has it started: who requires it or wants it. As long as one of them is meant to be up, so is it.
    pub kept_by: Vec<Id>,
}

impl Edges {
    fn lists(&mut self) -> [&mut Vec<Id>; 14] {
        let Self {
            needs,
            bonds,
            prepared_by,
            requires,
            wants,
            after,
            conflicts,
            earlier,
            later,
            required_by,
            sustains,
            bonded,
            prepares,
            kept_by,
        } = self;
        [
            needs,
            bonds,
            prepared_by,
            requires,
            wants,
            after,
            conflicts,
            earlier,
            later,
            required_by,
            sustains,
            bonded,
            prepares,
            kept_by,
        ]
    }
}

/// Services and their dependencies.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    services: Vec<Service>,
    /// Those that are alike are there once: a thousand services that one group wants have the same.
    edges: Vec<Arc<Edges>>,
    order: Vec<Id>,
    rank: Vec<usize>,
    /// Sorted by their names.
    by_name: Vec<Id>,
    /// Who is in the network of another, or will be when it is started the next time. Few, if any.
    joining: Vec<Id>,
    /// Whom no file describes any more. They have no relations.
    retired: BTreeSet<Id>,
    /// Definitions that take effect when what runs under the one before has ended.
    next: BTreeMap<Id, Service>,
}

/// What came out of resolving the names.
#[derive(Debug, Default)]
pub struct Built {
    /// Those that can be started, in the order in which they were given.
    pub graph: Graph,
    /// Those that cannot, each with the reason.
    pub refused: BTreeMap<String, Report>,
    /// What the authors should know.
    pub warnings: Vec<Report>,
}

impl Graph {
    /// Resolves names. `broken` are services whose files did not load: needing one of them is said as such.
    #[must_use]
    pub fn build(services: Vec<Service>, broken: &BTreeSet<String>) -> Built {
        let mut built = Built::default();
        let mut services = services;
        refuse_shared_ids(&mut services, &mut built.refused);
        refuse_cycles(&mut services, &mut built.refused);
        refuse_missing_needs(&mut services, broken, &mut built.refused);
        while refuse_conflicts(&mut services, &mut built.refused) {
            refuse_missing_needs(&mut services, broken, &mut built.refused);
        }
        built.warnings = warnings(&services, broken, &built.refused);
        built.graph = Self::resolve(services, BTreeSet::new(), BTreeMap::new());
        built
    }

    /// This generation in the ids of the one before it. A service keeps its id, and while it `runs` also the definition
    /// under which it was started: the new one comes [next](Self::next). Its relations are the new ones at once. One that
    /// no file describes any more stays without relations, and new ones come last; or in the places that are `free`, of
    /// whose services nobody knows anything any more: without that each name that was ever used would stay for ever.
    #[must_use]
    pub fn following(self, before: &Self, free: &BTreeSet<Id>, runs: impl Fn(Id) -> bool) -> Self {
        let mut new: BTreeMap<String, Service> =
            self.services.into_iter().map(|service| (service.name().to_owned(), service)).collect();
        let mut services = Vec::new();
        let (mut retired, mut next) = (BTreeSet::new(), BTreeMap::new());
        let mut relations = BTreeMap::new();
        for (id, old) in before.ids().zip(&before.services) {
            match new.remove(old.name()) {
                None => {
                    retired.insert(id);
                    services.push(old.clone());
                }
                Some(service) if runs(id) && !service.says_the_same_as(old) => {
                    relations.insert(id, service.dependencies().clone());
                    next.insert(id, service);
                    services.push(old.clone());
                }
                Some(service) => services.push(service),
            }
        }
        let places: Vec<Id> = free.intersection(&retired).copied().collect();
        let mut new = new.into_values();
        for (place, service) in places.into_iter().zip(&mut new) {
            retired.remove(&place);
            services[place.0] = service;
        }
        services.extend(new);
        for (id, dependencies) in relations {
            services[id.0].relate(dependencies);
        }
        Self::resolve(services, retired, next)
    }

    /// What the files say: every service that they describe, as they describe it.
    #[must_use]
    pub fn described(&self) -> Vec<Service> {
        let described = self.ids().filter(|id| !self.is_retired(*id));
        described.map(|id| self.next(id).unwrap_or(self.service(id)).clone()).collect()
    }

    /// Whether no file describes it any more.
    #[must_use]
    pub fn is_retired(&self, id: Id) -> bool {
        self.retired.contains(&id)
    }

    /// The definition that it will be started with the next time, where that is another one.
    #[must_use]
    pub fn next(&self, id: Id) -> Option<&Service> {
        self.next.get(&id)
    }

    /// What ran has ended: the next definition takes effect, if there is one.
    pub(crate) fn renew(&mut self, id: Id) {
        if let Some(service) = self.next.remove(&id) {
            self.services[id.0] = service;
        }
    }

    fn resolve(services: Vec<Service>, retired: BTreeSet<Id>, next: BTreeMap<Id, Service>) -> Self {
        let by_name: BTreeMap<&str, Id> =
            services.iter().enumerate().map(|(index, service)| (service.name(), Id(index))).collect();
        let mut edges: Vec<Edges> = vec![Edges::default(); services.len()];
        for (index, service) in
            services.iter().enumerate().filter(|(index, _)| !retired.contains(&Id(*index)))
        {
            let dependencies = service.dependencies();
            for (relation, name) in dependencies.each() {
                if let Some(other) = by_name.get(name.value.as_str()).filter(|other| !retired.contains(other))
                {
                    connect(&mut edges, Id(index), relation, *other, dependencies.tolerate_restart);
                }
            }
        }
        edges.iter_mut().flat_map(Edges::lists).for_each(once_each);
        let order = order(&edges);
        let mut different: HashSet<Arc<Edges>> = HashSet::new();
        let edges = edges.into_iter().map(|edges| match different.get(&edges) {
            Some(same) => same.clone(),
            None => {
                let edges = Arc::new(edges);
                different.insert(edges.clone());
                edges
            }
        });
        let mut edges: Vec<Arc<Edges>> = edges.collect();
        // They are where all of the edges were, which took forty times as much.
        edges.shrink_to_fit();
        let mut rank = vec![0; services.len()];
        for (place, id) in order.iter().enumerate() {
            rank[id.0] = place;
        }
        let joins = |service: &Service| service.network_of().is_some();
        let joining = services.iter().enumerate().map(|(index, service)| (Id(index), service));
        let joining = joining
            .filter(|(id, service)| joins(service) || next.get(id).is_some_and(joins))
            .map(|(id, _)| id)
            .collect();
        let by_name = by_name.into_values().collect();
        Self { services, edges, order, rank, by_name, joining, retired, next }
    }

    /// Who is in the network of that service.
    pub fn joined_to(&self, owner: Id) -> impl Iterator<Item = Id> {
        let of_it = move |id: &Id| self.service(*id).network_of() == Some(self.name(owner));
        self.joining.iter().copied().filter(of_it)
    }

    /// A number for all relations: two generations of files in which they differ have, as far as 64 bits can tell, different
    /// ones. Never 0. What the order of the services is makes no difference.
    #[must_use]
    pub fn relations(&self) -> u64 {
        let described = self.ids().filter(|id| !self.is_retired(*id)).map(|id| self.service(id));
        let each = described.flat_map(|service| {
            let of = service.dependencies().each();
            of.map(|(relation, other)| {
                // No name has a space.
                let words = [service.name(), relation.key(), &other.value];
                fnv(words.into_iter().flat_map(|word| word.as_bytes().iter().chain(b" ")))
            })
        });
        each.fold(0, u64::wrapping_add).max(1)
    }

    /// How many services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..self.services.len()).map(Id)
    }

    /// The service of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Id> {
        let found = self.by_name.binary_search_by(|id| self.name(*id).cmp(name));
        found.ok().map(|at| self.by_name[at])
    }

    /// A service.
    #[must_use]
    pub fn service(&self, id: Id) -> &Service {
        &self.services[id.0]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, id: Id) -> &str {
        self.services[id.0].name()
    }

    /// Its dependencies.
    #[must_use]
    pub fn edges(&self, id: Id) -> &Edges {
        &self.edges[id.0]
    }

    /// How `id` depends on `other`, between their names.
    #[must_use]
    pub fn verb(&self, id: Id, other: Id) -> &'static str {
        let edges = self.edges(id);
        let relation = if edges.needs.contains(&other) {
            Relation::Needs
        } else if edges.bonds.contains(&other) {
            Relation::BoundTo
        } else if edges.prepared_by.contains(&other) {
            Relation::PreparedBy
        } else if edges.requires.contains(&other) {
            Relation::Milestone
        } else {
            Relation::Conflicts
        };
        relation.verb()
    }

    /// All ids, whatever comes earlier (a need, a want, an after) before what comes later.
    #[must_use]
    pub fn order(&self) -> &[Id] {
        &self.order
    }

    /// Its place in that order.
    #[must_use]
    pub fn rank(&self, id: Id) -> usize {
        self.rank[id.0]
    }

    /// All services, in the order of their ids.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = (&str, Id)> {
        self.by_name.iter().map(|id| (self.name(*id), *id))
    }
}

/// One relation of `id` to `other`, seen from both ends.
fn connect(edges: &mut [Edges], id: Id, relation: Relation, other: Id, tolerates: bool) {
    let (first, second) = if relation == Relation::Before { (id, other) } else { (other, id) };
    let own = &mut edges[id.0];
    match relation {
        Relation::Needs => {
            own.needs.push(other);
            if !tolerates {
                own.bonds.push(other);
            }
        }
        Relation::BoundTo => own.bonds.push(other),
        Relation::PreparedBy => own.prepared_by.push(other),
        Relation::Wants => own.wants.push(other),
        Relation::After | Relation::Before => edges[second.0].after.push(first),
        Relation::Conflicts => own.conflicts.push(other),
        Relation::Milestone => {}
    }
    let bonded = relation == Relation::BoundTo || relation == Relation::Needs && !tolerates;
    if bonded {
        edges[other.0].bonded.push(id);
    }
    match relation {
        Relation::Needs | Relation::BoundTo => edges[other.0].sustains.push(id),
        Relation::PreparedBy => {
            edges[other.0].sustains.push(id);
            edges[other.0].prepares.push(id);
        }
        Relation::Conflicts => edges[other.0].conflicts.push(id),
        Relation::Milestone | Relation::Wants | Relation::After | Relation::Before => {}
    }
    if relation.is_required() {
        edges[id.0].requires.push(other);
        edges[other.0].required_by.push(id);
    }
    if relation.starts() {
        edges[other.0].kept_by.push(id);
    }
    if relation.orders() {
        edges[second.0].earlier.push(first);
        edges[first.0].later.push(second);
    }
}

/// Kahn's order. What lies on a cycle is left out; a graph that is handed on has none.
fn order(edges: &[Edges]) -> Vec<Id> {
    let mut earlier = vec![0_usize; edges.len()];
    for later in edges.iter().flat_map(|edges| &edges.later) {
        earlier[later.0] += 1;
    }
    let mut order: Vec<Id> = (0..edges.len()).filter(|index| earlier[*index] == 0).map(Id).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for later in &edges[id.0].later {
            earlier[later.0] -= 1;
            if earlier[later.0] == 0 {
                order.push(*later);
            }
        }
    }
    order
}

/// Keeps the first of each.
fn once_each(list: &mut Vec<Id>) {
    if list.len() > 1 {
        let mut seen = HashSet::with_capacity(list.len());
        list.retain(|id| seen.insert(*id));
    }
}

fn report(service: &Service, problem: Diagnostic) -> Report {
    Report { sources: service.sources().clone(), diagnostics: vec![problem] }
}

fn take_out(
    services: &mut Vec<Service>,
    refused: &mut BTreeMap<String, Report>,
    out: BTreeMap<String, Report>,
) {
    services.retain(|service| !out.contains_key(service.name()));
    refused.extend(out);
}

/// Refuses who needs what is not there, until all that is left have what they need.
fn refuse_missing_needs(
    services: &mut Vec<Service>,
    broken: &BTreeSet<String>,
    refused: &mut BTreeMap<String, Report>,
) {
    loop {
        let names: BTreeSet<&str> = services.iter().map(Service::name).collect();
        let mut out = BTreeMap::new();
        for service in services.iter() {
            let missing = service
                .dependencies()
                .each()
                .find(|(relation, name)| relation.is_required() && !names.contains(name.value.as_str()));
            if let Some((relation, need)) = missing {
                let known = broken.contains(&need.value) || refused.contains_key(&need.value);
                let problem = missing_problem("missing-need", relation.verb(), service, need, known, &names);
                out.insert(service.name().to_owned(), report(service, problem));
            }
        }
        if out.is_empty() {
            return;
        }
        take_out(services, refused, out);
    }
}

fn missing_problem(
    code: &'static str,
    verb: &str,
    service: &Service,
    name: &Located<String>,
    known: bool,
    names: &BTreeSet<&str>,
) -> Diagnostic {
    let why = if known { "which has errors of its own" } else { "and there is no such service" };
    let message = format!("`{}` {verb} `{}`, {why}", service.name(), name.value);
    let problem = Diagnostic::error(code, name.at.clone(), message);
    match sandbox::diagnostic::nearest(&name.value, names.iter().copied()) {
        Some(near) if !known => problem.label(format!("did you mean `{near}`?")),
        Some(_) | None => problem,
    }
}

/// `user = "auto"` is a function of the name: the second of two services whose names meet would own the first one's
/// files.
fn refuse_shared_ids(services: &mut Vec<Service>, refused: &mut BTreeMap<String, Report>) {
    let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for service in services.iter() {
        let Some(program) = service.program() else { continue };
        let id = sandbox::compile::auto_id(service.name());
        let owner = owners.entry(id).or_insert(service.name());
        if *owner != service.name() {
            let message = format!("`{}` and `{owner}` have the same automatic uid, {id}", service.name());
            let problem = Diagnostic::error("shared-uid", program.exec.at.clone(), message)
                .help("rename one of the two: the uid follows from the name");
            out.insert(service.name().to_owned(), report(service, problem));
        }
    }
    take_out(services, refused, out);
}

/// Refuses everyone on a cycle.
fn refuse_cycles(services: &mut Vec<Service>, refused: &mut BTreeMap<String, Report>) {
    loop {
        let Some(cycle) = find_cycle(services) else { return };
        let said = |edge: &Edge| {
            let owner = &services[edge.owner];
            format!("`{}` {} `{}`", owner.name(), edge.relation.verb(), edge.name.value)
        };
        let edges: Vec<String> = cycle
            .iter()
            .map(|edge| format!("{} ({})", said(edge), services[edge.owner].sources().locate(&edge.name.at)))
            .collect();
        let mut out = BTreeMap::new();
        for edge in &cycle {
            let message = format!("a cycle: {}", edges.join(", "));
            let problem = Diagnostic::error("dependency-cycle", edge.name.at.clone(), message)
                .label(said(edge))
                .help("take one of these edges out; none of them is dropped silently");
            out.insert(services[edge.later].name().to_owned(), report(&services[edge.owner], problem));
        }
        take_out(services, refused, out);
    }
}

/// Why one service comes later than another.
#[derive(Debug, Clone)]
struct Edge {
    /// Who comes later.
    later: usize,
    /// Who says so: the later one, or with `before` the earlier one.
    owner: usize,
    relation: Relation,
    /// The name as the owner writes it.
    name: Located<String>,
}

/// Some cycle, edge by edge: depth first, the current path kept.
fn find_cycle(services: &[Service]) -> Option<Vec<Edge>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let index: BTreeMap<&str, usize> =
        services.iter().enumerate().map(|(index, service)| (service.name(), index)).collect();
    let mut edges: Vec<Vec<(usize, Edge)>> = vec![Vec::new(); services.len()];
    for (owner, service) in services.iter().enumerate() {
        for (relation, name) in service.dependencies().each().filter(|(relation, _)| relation.orders()) {
            let Some(other) = index.get(name.value.as_str()).copied() else { continue };
            let (earlier, later) = if relation == Relation::Before { (owner, other) } else { (other, owner) };
            edges[later].push((earlier, Edge { later, owner, relation, name: name.clone() }));
        }
    }
    let mut marks = vec![Mark::New; services.len()];
    for start in 0..services.len() {
        // An own stack instead of recursion: a chain may be as long as there are services.
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks[start] == Mark::New {
            marks[start] = Mark::OnPath;
            path.push((start, 0));
        }
        while let Some((node, next)) = path.last_mut() {
            let Some((to, _)) = edges[*node].get(*next) else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[*to] {
                Mark::Done => {}
                Mark::New => {
                    marks[*to] = Mark::OnPath;
                    path.push((*to, 0));
                }
                Mark::OnPath => {
                    let first = path.iter().position(|(node, _)| node == to)?;
                    let cycle = path[first..].iter().map(|(node, next)| edges[*node][next - 1].1.clone());
                    return Some(cycle.collect());
                }
            }
        }
    }
    None
}

/// Refuses who needs, however far away, two services that conflict, or one that conflicts with it.
fn refuse_conflicts(services: &mut Vec<Service>, refused: &mut BTreeMap<String, Report>) -> bool {
    let graph = Graph::resolve(services.clone(), BTreeSet::new(), BTreeMap::new());
    let mut out = BTreeMap::new();
    for id in graph.ids() {
        let mut closure = BTreeSet::from([id]);
        let mut queue = vec![id];
        while let Some(next) = queue.pop() {
            queue.extend(graph.edges(next).requires.iter().filter(|need| closure.insert(**need)));
        }
        let pair = closure.iter().find_map(|one| {
            graph
                .edges(*one)
                .conflicts
                .iter()
                .find(|other| closure.contains(other))
                .map(|other| (*one, *other))
        });
        if let Some((one, other)) = pair {
            let service = graph.service(id);
            let dependencies = service.dependencies();
            let named =
                |(relation, _): &(Relation, _)| relation.is_required() || *relation == Relation::Conflicts;
            let at = dependencies.each().find(named).map(|(_, name)| &name.at);
            let message = format!(
                "`{}` cannot be up: it takes `{}` and `{}`, which conflict",
                service.name(),
                graph.name(one),
                graph.name(other)
            );
            let problem = match at {
                Some(at) => Diagnostic::error("conflict-with-need", at.clone(), message),
                None => Diagnostic::error_nowhere("conflict-with-need", message),
            };
            out.insert(service.name().to_owned(), report(service, problem));
        }
    }
    let some = !out.is_empty();
    take_out(services, refused, out);
    some
}

/// What is wanted or ordered after and is not there.
fn warnings(
    services: &[Service],
    broken: &BTreeSet<String>,
    refused: &BTreeMap<String, Report>,
) -> Vec<Report> {
    let names: BTreeSet<&str> = services.iter().map(Service::name).collect();
    let mut warnings = Vec::new();
    for service in services {
        let missing = service.dependencies().each().filter(|(relation, name)| {
            relation.orders() && !relation.is_required() && !names.contains(name.value.as_str())
        });
        for (relation, name) in missing {
            let known = broken.contains(&name.value) || refused.contains_key(&name.value);
            let code = if relation == Relation::Wants { "missing-want" } else { "missing-order" };
            let mut problem = missing_problem(code, relation.verb(), service, name, known, &names);
            problem.severity = Severity::Warning;
            warnings.push(report(service, problem));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::parse_text;

    fn services(files: &[(&str, &str)]) -> Vec<Service> {
        files
            .iter()
            .map(|(name, dependencies)| {
                let text = format!("exec = [\"/bin/{name}\"]\n[dependencies]\n{dependencies}\n");
                parse_text(name, &text).unwrap()
            })
            .collect()
    }

    fn build(files: &[(&str, &str)]) -> Built {
        Graph::build(services(files), &BTreeSet::from(["broken".to_owned()]))
    }

    fn left(built: &Built) -> Vec<&str> {
        built.graph.names().map(|(name, _)| name).collect()
    }

    #[test]
    fn who_has_the_same_relations_has_them_together() {
        let built =
            build(&[("web", "wants = [\"db\", \"cache\"]"), ("db", ""), ("cache", ""), ("alone", "")]);
        let edges = |name: &str| &built.graph.edges[built.graph.find(name).unwrap().0];
        assert!(Arc::ptr_eq(edges("db"), edges("cache")));
        assert!(!Arc::ptr_eq(edges("db"), edges("alone")) && !Arc::ptr_eq(edges("web"), edges("alone")));
    }

    #[test]
    fn edges_are_seen_from_both_ends() {
        let built =
            build(&[("a", "needs = [\"b\"]\nconflicts = [\"c\"]"), ("b", ""), ("c", "after = [\"b\"]")]);
        let graph = &built.graph;
        let (a, b, c) = (graph.find("a").unwrap(), graph.find("b").unwrap(), graph.find("c").unwrap());
        assert_eq!(graph.edges(a).needs, [b]);
        assert_eq!(graph.edges(b).required_by, [a]);
        assert_eq!(graph.edges(b).later, [a, c]);
        assert_eq!(graph.edges(c).conflicts, [a]);
        assert!(built.refused.is_empty() && built.warnings.is_empty());
    }

    #[test]
    fn a_cycle_is_refused_naming_every_edge_and_the_rest_boots() {
        let built = build(&[
            ("a", "needs = [\"b\"]"),
            ("b", "wants = [\"c\"]"),
            ("c", "after = [\"a\"]"),
            ("d", "wants = [\"a\"]"),
            ("e", "needs = [\"b\"]"),
        ]);
        assert_eq!(left(&built), ["d"]);
        assert_eq!(built.refused.keys().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
        assert_eq!(
            built.refused["b"].to_string(),
            "error[dependency-cycle]: a cycle: `a` needs `b` (a.toml:3:10), `b` wants `c` (b.toml:3:10), \
             `c` is after `a` (c.toml:3:10)\n --> b.toml:3:10\n  |\n3 | wants = [\"c\"]\n  |          ^^^ \
             `b` wants `c`\n  = help: take one of these edges out; none of them is dropped silently\n"
        );
        assert_eq!(built.warnings.len(), 1, "d wants a, which has errors");
    }

    #[test]
    fn every_relation_can_close_a_cycle() {
        for relation in Relation::ALL.into_iter().filter(|relation| relation.orders()) {
            let text = format!("{} = [\"b\"]", relation.key());
            let back = if relation == Relation::Before { "before = [\"a\"]" } else { "after = [\"a\"]" };
            let built = build(&[("a", &text), ("b", back), ("c", "")]);
            assert_eq!(left(&built), ["c"], "{text}");
            for name in ["a", "b"] {
                let report = built.refused[name].to_string();
                assert!(report.contains(&format!("`a` {} `b` (a.toml:3:", relation.verb())), "{report}");
            }
        }
        let built = build(&[("a", "before = [\"b\"]"), ("b", "before = [\"c\"]"), ("c", "needs = [\"a\"]")]);
        assert_eq!(built.refused.len(), 0, "what is before is earlier");
        let order: Vec<_> = built.graph.order().iter().map(|id| built.graph.name(*id)).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[test]
    fn a_missing_need_refuses_and_a_missing_want_warns() {
        let built = build(&[
            ("web", "needs = [\"netwrok\"]"),
            ("network", ""),
            ("top", "needs = [\"web\"]"),
            ("soft", "wants = [\"nothing-like-it\"]\nafter = [\"neither\"]"),
            ("unlucky", "needs = [\"broken\"]"),
        ]);
        assert_eq!(left(&built), ["network", "soft"]);
        let text = built.refused["web"].to_string();
        assert!(
            text.contains("error[missing-need]: `web` needs `netwrok`, and there is no such service"),
            "{text}"
        );
        assert!(text.contains("did you mean `network`?"), "{text}");
        assert!(built.refused["top"].to_string().contains("which has errors of its own"));
        assert!(built.refused["unlucky"].to_string().contains("which has errors of its own"));
        let codes: Vec<_> = built.warnings.iter().map(|report| report.diagnostics[0].code).collect();
        assert_eq!(codes, ["missing-want", "missing-order"]);
        assert!(built.warnings.iter().all(|report| !report.has_errors()));
    }

    #[test]
    fn who_needs_two_that_conflict_is_refused() {
        let built = build(&[
            ("a", "needs = [\"b\", \"c\"]"),
            ("b", "conflicts = [\"c\"]"),
            ("c", ""),
            ("d", "needs = [\"a\"]"),
            ("e", "needs = [\"c\"]\nconflicts = [\"c\"]"),
        ]);
        assert_eq!(left(&built), ["b", "c"]);
        assert_eq!(built.refused["a"].diagnostics[0].code, "conflict-with-need");
        assert_eq!(built.refused["e"].diagnostics[0].code, "conflict-with-need");
    }

    #[test]
    fn the_second_of_two_names_with_one_automatic_uid_is_refused() {
        let mut seen = BTreeMap::new();
        let meet = (0..1_000_000_u32).map(|number| format!("s{number}")).find_map(|name| {
            let other = seen.insert(sandbox::compile::auto_id(&name), name.clone())?;
            Some([other, name])
        });
        let [first, second] = meet.unwrap();
        let built = build(&[(&first, ""), (&second, ""), ("third", "")]);
        assert!(built.graph.find(&first).is_some() && built.graph.find(&second).is_none());
        let text = built.refused[&second].to_string();
        assert!(text.contains(&format!("`{second}` and `{first}` have the same automatic uid")), "{text}");
    }

    #[test]
    fn a_chain_of_ten_thousand_is_no_problem() {
        let names: Vec<String> = (0..10_000).map(|n| format!("s{n}")).collect();
        let files: Vec<(&str, String)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), format!("after = [\"s{}\"]", (n + 1).min(9_999))))
            .collect();
        let files: Vec<Service> = files
            .iter()
            .take(9_999)
            .map(|(name, dependencies)| {
                let text = format!("exec = [\"/bin/x\"]\n[dependencies]\n{dependencies}\n");
                parse_text(name, &text).unwrap()
            })
            .collect();
        assert!(find_cycle(&files).is_none());
    }
}
