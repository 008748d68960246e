package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// metrics are the controller's. Those of a view are set at each plan, on the leader only.
type metrics struct {
	leader    prometheus.Gauge
	reconcile prometheus.Histogram
	rounds    *prometheus.CounterVec
	actions   *prometheus.CounterVec
	holds     *prometheus.GaugeVec
	demand    *prometheus.GaugeVec
	tasks     *prometheus.GaugeVec
	launches  *prometheus.GaugeVec
	queueWait prometheus.Histogram
	ends      *prometheus.CounterVec
	storeAge  prometheus.Gauge
	desired   *prometheus.CounterVec
	events    *prometheus.CounterVec

	budgetWaiting *prometheus.GaugeVec
	budgetRate    *prometheus.GaugeVec
	drought       prometheus.Gauge
	circuitOpen   prometheus.Gauge
	startDeadline prometheus.Gauge
	launchFailed  *prometheus.GaugeVec
}

// The results of an action.
const (
	actionDone   = "done"
	actionStale  = "stale"  // the view was behind
	actionFenced = "fenced" // another replica leads by now
	actionFailed = "failed"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_leader", Help: "1 on the replica that leads."}),
		reconcile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wallcrawler_reconcile_seconds", Help: "Time of one round of observing, planning and acting.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_reconcile_rounds_total", Help: "Rounds, by how they ended."}, []string{"result"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_actions_total", Help: "Actions carried out, by kind and result."}, []string{"kind", "result"}),
		holds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_holds", Help: "Things held back by the last plan, by kind."}, []string{"kind"}),
		demand: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_demand", Help: "The arithmetic behind the last plan, in slots, and in containers for launch and surplus."}, []string{"of"}),
		tasks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_tasks", Help: "ECS tasks of this deployment, by state."}, []string{"state"}),
		launches: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_launches", Help: "Recorded launches, by outcome."}, []string{"outcome"}),
		queueWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wallcrawler_queue_wait_seconds", Help: "From admission of a session to its binding.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 14)}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_session_end_total", Help: "Sessions ended, by reason."}, []string{"reason"}),
		storeAge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_store_age_seconds", Help: "Age of the leader's view of the store at the last plan."}),
		desired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_pool_desired_total", Help: "Changes of pool:desired, by what became of them."}, []string{"result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_events_total", Help: "Events noted for people, by reason."}, []string{"reason"}),
		budgetWaiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_ecs_budget_waiting", Help: "Calls that the last round left waiting for the account's allowance."}, []string{"call"}),
		budgetRate: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_ecs_budget_per_second", Help: "Calls a second that are allowed now: half of what AWS publishes, less after throttling."}, []string{"call"}),
		drought: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_launch_drought", Help: "1 while ECS has no room for containers."}),
		circuitOpen: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_launch_circuit_open", Help: "1 while launches go wrong one after the other and only one is tried now and then."}),
		startDeadline: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_start_deadline_seconds", Help: "Time from a launch to its registration that is allowed, as learnt."}),
		launchFailed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_launches_failed", Help: "Launches of the last ten minutes that failed, by cause."}, []string{"cause"}),
	}
	for _, result := range []string{"obeyed", "refused", "absent"} {
		m.desired.WithLabelValues(result)
	}
	for _, result := range []string{"done", "unobserved"} {
		m.rounds.WithLabelValues(result)
	}
	for _, kind := range plan.Kinds() {
		for _, result := range []string{actionDone, actionStale, actionFenced, actionFailed} {
			m.actions.WithLabelValues(string(kind), result)
		}
	}
	for _, reason := range state.EventReasons() {
		m.events.WithLabelValues(string(reason))
	}
	for _, reason := range state.Reasons() {
		m.ends.WithLabelValues(string(reason))
	}
	if reg != nil {
		reg.MustRegister(m.leader, m.reconcile, m.rounds, m.actions, m.holds, m.demand, m.tasks,
			m.launches, m.queueWait, m.ends, m.storeAge, m.desired, m.events,
			m.budgetWaiting, m.budgetRate, m.drought, m.circuitOpen, m.startDeadline, m.launchFailed)
	}
	return m
}

// planned sets what a plan and its snapshot show.
func (m *metrics) planned(s plan.Snapshot, p plan.Plan) {
	m.storeAge.Set(s.StoreAge.Seconds())
	holds := map[plan.HoldKind]int{}
	for _, h := range p.Holds {
		holds[h.What]++
	}
	for _, k := range plan.HoldKinds() {
		m.holds.WithLabelValues(string(k)).Set(float64(holds[k]))
	}
	d := p.Demand
	for of, n := range map[string]int{"live": d.Live, "pending": d.Pending, "unplaced": d.Unplaced,
		"free": d.Free, "coming": d.Coming, "containers": d.Containers, "launch": d.Launch, "surplus": d.Surplus} {
		m.demand.WithLabelValues(of).Set(float64(n))
	}
	tasks := map[string]int{"starting": 0, "running": 0, "stopping": 0, "stopped": 0}
	for i := range s.Tasks {
		tasks[taskState(&s.Tasks[i])]++
	}
	for name, n := range tasks {
		m.tasks.WithLabelValues(name).Set(float64(n))
	}
	launches := map[state.Outcome]int{"": 0, state.Started: 0, state.Registered: 0, state.Refused: 0, state.Expired: 0}
	for _, l := range s.Launches {
		launches[l.Outcome]++
	}
	for outcome, n := range launches {
		name := string(outcome)
		if name == "" {
			name = "recorded"
		}
		m.launches.WithLabelValues(name).Set(float64(n))
	}
	m.drought.Set(oneIf(p.Launching.Drought))
	m.circuitOpen.Set(oneIf(p.Launching.Open))
	m.startDeadline.Set(p.Launching.Deadline.Seconds())
	failed := map[state.Cause]int{}
	for _, l := range s.Launches {
		failed[l.Cause]++
	}
	for _, cause := range state.Causes() {
		m.launchFailed.WithLabelValues(string(cause)).Set(float64(failed[cause]))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// taskState sums ECS's many states up.
func taskState(t *state.Task) string {
	switch {
	case t.Stopped():
		return "stopped"
	case t.DesiredStatus == "STOPPED":
		return "stopping"
	case t.LastStatus == "RUNNING":
		return "running"
	default:
		return "starting"
	}
}
