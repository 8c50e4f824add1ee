//! One question, put to the plugins of its tenant.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use sluice_base::event::Tagged;
use sluice_base::limits::{PLAN_RETRY_MAX, PLAN_RETRY_MIN};
use sluice_base::policy::{Denial, Question, Verdict};

use crate::bindings::exports::sluice::policy::admission::AllocationVerdict;
use crate::bindings::sluice::policy::types;
use crate::capture::{self, Capture};
use crate::compose::{self, Opinion, Told};
use crate::facts::{Names, Node, Standing, Teller};
use crate::failure::Failure;
use crate::fence::{Fences, Known};
use crate::guest::{Context, Places, unix_seconds};
use crate::hook::Hook;
use crate::host::{Answer, Mode, Tag};
use crate::lines::Voice;
use crate::lock;
use crate::plugin::{Plugin, no_hook};
use crate::records::BoundPlan;
use crate::rest::Rest;
use crate::sets::Sets;
use crate::stats::Outcome;

/// The policies of one tenant.
pub(crate) struct Bound {
    pub(crate) names: Arc<Names>,
    pub(crate) tagged: Arc<OnceLock<Tag>>,
    /// How long the plugins of one question may take together.
    pub(crate) whole: Duration,
    pub(crate) node: Node,
    pub(crate) places: Places,
    pub(crate) sets: Arc<Sets>,
    pub(crate) fences: Vec<BoundFence>,
    /// What is written of its records; none where no plugin has a plan for them.
    pub(crate) records: Option<BoundPlan>,
    pub(crate) tenancies: Vec<Tenancy>,
    pub(crate) renewal: Mutex<Renewal>,
}

/// How the asking again for a tenant's plans goes.
#[derive(Default)]
pub(crate) struct Renewal {
    /// After a failure: when it is tried again.
    next: Option<Instant>,
    pause: Duration,
    /// That a plan has run out was seen.
    is_over: bool,
    /// After a plan of records could not be had: when it is tried again, and after which pause.
    records: Option<(Instant, Duration)>,
}

/// One plugin's fences for one tenant.
pub(crate) struct BoundFence {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) mode: Mode,
    pub(crate) fences: Fences,
    pub(crate) voice: Arc<Voice>,
}

/// One plugin bound to one tenant.
pub(crate) struct Tenancy {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) mode: Mode,
    pub(crate) context: Arc<Context>,
    pub(crate) rest: Arc<Rest>,
    pub(crate) voice: Arc<Voice>,
    /// Where what it is asked in a dry run is kept.
    pub(crate) capture: Option<Arc<dyn Capture>>,
}

impl Tenancy {
    /// Where this question is kept; nowhere where its verdict holds.
    fn capture(&self) -> Option<&dyn Capture> {
        self.capture.as_deref().filter(|_| self.mode == Mode::DryRun)
    }
}

/// What one plugin said of each thing in question, and its words for the audit.
struct Said {
    opinions: Vec<Opinion>,
    tags: Vec<String>,
}

impl Said {
    fn of_allocation(verdict: &AllocationVerdict, told: &Told) -> Result<Self, Failure> {
        let tags = compose::tags(compose::tags_of_allocation(verdict), told)?;
        Ok(Said { opinions: vec![Opinion::of_allocation(verdict)?], tags })
    }

    fn of_peers(verdicts: &[types::Verdict], peers: usize, told: &Told) -> Result<Self, Failure> {
        if verdicts.len() != peers {
            return Err(Failure::Answer);
        }
        let tags = compose::tags(verdicts.iter().flat_map(compose::tags_of_peer), told)?;
        let opinions = verdicts.iter().map(Opinion::of_peer).collect::<Result<_, _>>()?;
        Ok(Said { opinions, tags })
    }
}

/// A question on its way to a thread.
pub(crate) struct Job {
    pub(crate) bound: Arc<Bound>,
    pub(crate) hook: Hook,
    pub(crate) question: Question,
    pub(crate) standing: Standing,
    pub(crate) deadline: Instant,
    /// Where nobody waits for the verdict: none.
    pub(crate) answer: Option<Answer>,
}

impl Bound {
    /// Whether its plans are to be asked for again.
    pub(crate) fn is_to_be_renewed(&self, now: Instant) -> bool {
        let is_due = |bound: &BoundFence| bound.fences.renewal.is_some_and(|(at, _)| now >= at);
        let renewal = lock(&self.renewal);
        let fences = self.fences.iter().any(is_due) && renewal.next.is_none_or(|next| now >= next);
        fences || (self.lacks_records() && renewal.records.is_none_or(|(next, _)| now >= next))
    }

    /// Whether a plan for its records could not be had.
    fn lacks_records(&self) -> bool {
        self.records.as_ref().is_some_and(|records| !records.faults.is_empty())
    }

    /// The plan for its records, which holds until plugins or settings are other ones; none where one could not be had.
    pub(crate) fn records_kept(&self) -> Option<BoundPlan> {
        self.records.clone().filter(|_| !self.lacks_records())
    }

    /// Takes the place of those of a former time: what could not be had again is tried later than the last time.
    pub(crate) fn succeeds(&self, before: &Bound, now: Instant) {
        if self.lacks_records() {
            let pause = lock(&before.renewal).records.map_or(Duration::ZERO, |(_, pause)| pause);
            let pause = (pause * 2).clamp(PLAN_RETRY_MIN, PLAN_RETRY_MAX);
            lock(&self.renewal).records = Some((now + pause, pause));
        }
    }

    /// They could not be had.
    pub(crate) fn renewal_failed(&self, now: Instant) {
        let mut renewal = lock(&self.renewal);
        renewal.pause = (renewal.pause * 2).clamp(PLAN_RETRY_MIN, PLAN_RETRY_MAX);
        renewal.next = Some(now + renewal.pause);
        // They are asked for together.
        renewal.records = Some((now + renewal.pause, renewal.pause));
    }

    /// Whether a plan of its has run out since this was last asked.
    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.is_stale(now) && !std::mem::replace(&mut lock(&self.renewal).is_over, true)
    }

    /// Whether a plan of its has run out.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.fences.iter().any(|bound| bound.fences.is_stale(now))
    }

    /// Whether its plans say the same as those of another time.
    pub(crate) fn plans_are_like(&self, other: &Bound) -> bool {
        let records = |bound: &Bound| bound.records.as_ref().map(|records| records.plan.clone());
        records(self) == records(other)
            && self.fences.len() == other.fences.len()
            && self.fences.iter().zip(&other.fences).all(|(a, b)| a.fences.are_like(&b.fences))
    }

    /// Whether any plugin has this hook.
    pub(crate) fn asks(&self, hook: Hook) -> bool {
        self.tenancies.iter().any(|tenancy| tenancy.plugin.hooks.contains(&hook))
    }

    /// Whether any has whose verdict holds.
    pub(crate) fn decides(&self, hook: Hook) -> bool {
        self.with(hook, Mode::Enforce).next().is_some()
    }

    /// The fences' no, if it is one. No guest code runs.
    pub(crate) fn fenced(&self, question: &Question) -> Option<Denial> {
        if self.fences.is_empty() {
            return None;
        }
        let (began, now_unix) = (Instant::now(), unix_seconds());
        let place = |endpoint: &sluice_base::policy::Endpoint| self.places.place(endpoint.address.ip(), now_unix);
        let client = place(&question.client);
        let peers: Vec<Known> = question.peers.iter().map(place).collect();
        let mut denial = None;
        for BoundFence { plugin, mode, fences, voice } in &self.fences {
            let dry_run = *mode == Mode::DryRun;
            let is_stale = fences.is_stale(began);
            let outside = if is_stale { None } else { fences.judge(&client, &peers, &self.sets) };
            let (outcome, reason) = match outside {
                _ if is_stale => (Outcome::Failed, Failure::Stale.name()),
                Some(outside) => (Outcome::Deny, outside.word()),
                None => (Outcome::Allow, ""),
            };
            if is_stale {
                plugin.stats.failure(Failure::Stale);
            }
            plugin.stats.verdict(Hook::Geofence, outcome, dry_run, began.elapsed());
            if outcome != Outcome::Allow {
                voice.says_no(Hook::Geofence, reason, dry_run);
                denial = denial.or((!dry_run).then_some(Denial::Forbidden));
            }
        }
        denial
    }

    /// The verdict of those whose verdict holds.
    pub(crate) fn judge(&self, hook: Hook, question: &Question, standing: &Standing, deadline: Instant) -> Verdict {
        let things = question.peers.len().max(1);
        let mut opinions = vec![Vec::new(); things];
        for tenancy in self.with(hook, Mode::Enforce) {
            match self.ask(tenancy, hook, question, standing, deadline) {
                Ok(of_each) => {
                    let denies = of_each.iter().any(|opinion| matches!(opinion, Opinion::Deny(_)));
                    opinions.iter_mut().zip(of_each).for_each(|(all, one)| all.push(one));
                    if denies {
                        break;
                    }
                }
                Err(failure) => return Verdict::Deny(failure.denial()),
            }
        }
        compose::verdict(opinions.into_iter().map(compose::join))
    }

    /// Asks those whose verdict does not hold.
    pub(crate) fn rehearse(&self, hook: Hook, question: &Question, standing: &Standing, deadline: Instant) {
        for tenancy in self.with(hook, Mode::DryRun) {
            let _ = self.ask(tenancy, hook, question, standing, deadline);
        }
    }

    /// The queue was full: a no of those who decide; dry runs would have failed, which decides nothing.
    pub(crate) fn overloaded(&self, hook: Hook) -> Verdict {
        let mode = if self.decides(hook) { Mode::Enforce } else { Mode::DryRun };
        if let Some(tenancy) = self.with(hook, mode).next() {
            self.failed(tenancy, hook, Failure::Overload, Instant::now());
        }
        match mode {
            Mode::Enforce => Verdict::Deny(Denial::Unanswered),
            Mode::DryRun => Verdict::Allow(Default::default()),
        }
    }

    fn with(&self, hook: Hook, mode: Mode) -> impl Iterator<Item = &Tenancy> {
        self.tenancies.iter().filter(move |t| t.mode == mode && t.plugin.hooks.contains(&hook))
    }

    /// What one plugin says of each thing in question; counted and logged.
    fn ask(
        &self,
        tenancy: &Tenancy,
        hook: Hook,
        question: &Question,
        standing: &Standing,
        deadline: Instant,
    ) -> Result<Vec<Opinion>, Failure> {
        let (plugin, began) = (&tenancy.plugin, Instant::now());
        let answer = match tenancy.rest.is_on(began) {
            true => Err(Failure::Resting),
            false => self.call(tenancy, hook, question, standing, deadline),
        };
        match &answer {
            Ok(Said { opinions, tags }) => {
                let joined = compose::join(opinions.iter().copied());
                let dry_run = tenancy.mode == Mode::DryRun;
                let outcome = match joined {
                    Opinion::Allow(_) => Outcome::Allow,
                    Opinion::Abstain => Outcome::Abstain,
                    Opinion::Deny(code) => {
                        tenancy.voice.says_no(hook, compose::word(code), dry_run);
                        Outcome::Deny
                    }
                };
                plugin.stats.verdict(hook, outcome, dry_run, began.elapsed());
                if !dry_run && !tags.is_empty() {
                    self.tag(plugin, hook, question, outcome == Outcome::Allow, tags);
                }
            }
            Err(failure) => self.failed(tenancy, hook, *failure, began),
        }
        answer.map(|said| said.opinions)
    }

    fn call(
        &self,
        tenancy: &Tenancy,
        hook: Hook,
        question: &Question,
        standing: &Standing,
        deadline: Instant,
    ) -> Result<Said, Failure> {
        let plugin = &*tenancy.plugin;
        let (names, places, node) = (&*self.names, &self.places, &self.node);
        let teller = Teller { plugin, names, places, node, unix_seconds: unix_seconds() };
        let context = teller.context(question);
        let guest = &plugin.guest;
        match hook {
            Hook::Allocate => {
                let request = teller.request(question, standing);
                let answer = guest.call(&tenancy.context, deadline, |store, instance| {
                    let hook = guest.indices.admission.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
                    hook.call_allocate(&mut *store, &context, &request)
                });
                let told = Told::of(request.subject.as_ref(), &request.client, &[]);
                let said = answer.and_then(|(verdict, _)| Ok((Said::of_allocation(&verdict, &told)?, verdict)));
                if let Some(kept) = tenancy.capture() {
                    let answer = said.as_ref().map(|(_, verdict)| verdict).map_err(|failure| *failure);
                    capture::keep(kept, &plugin.stats, || {
                        capture::allocation(&plugin.facts, &context, &request, answer)
                    });
                }
                Ok(said?.0)
            }
            _ => {
                let (allocation, peers) = (teller.allocation(question), teller.peers(question));
                let answer = guest.call(&tenancy.context, deadline, |store, instance| {
                    let hook = guest.indices.admission.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
                    hook.call_permit_peers(&mut *store, &context, &allocation, &peers)
                });
                let told = Told::of(allocation.subject.as_ref(), &allocation.client, &peers);
                let said =
                    answer.and_then(|(verdicts, _)| Ok((Said::of_peers(&verdicts, peers.len(), &told)?, verdicts)));
                if let Some(kept) = tenancy.capture() {
                    let answer = said.as_ref().map(|(_, verdicts)| &verdicts[..]).map_err(|failure| *failure);
                    capture::keep(kept, &plugin.stats, || {
                        capture::peers(&plugin.facts, &context, &allocation, &peers, answer)
                    });
                }
                Ok(said?.0)
            }
        }
    }

    /// Has words of a plugin written into the audit.
    fn tag(&self, plugin: &Plugin, hook: Hook, question: &Question, allowed: bool, tags: &[String]) {
        let Some(tag) = self.tagged.get() else { return };
        tag(Tagged {
            session: question.session,
            tenant: question.tenant,
            unix_seconds: unix_seconds(),
            plugin: plugin.name.clone(),
            hook: hook.name(),
            allowed,
            tags: tags.to_vec(),
        });
    }

    fn failed(&self, tenancy: &Tenancy, hook: Hook, failure: Failure, began: Instant) {
        let (plugin, dry_run, now) = (&tenancy.plugin, tenancy.mode == Mode::DryRun, Instant::now());
        let failure = tenancy.rest.failed(now, failure, now.duration_since(began), self.whole);
        plugin.stats.failure(failure);
        plugin.stats.verdict(hook, Outcome::Failed, dry_run, began.elapsed());
        tenancy.voice.says_no(hook, failure.name(), dry_run);
    }
}
