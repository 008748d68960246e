package api

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/state"
)

// Where the browser of a created session came from, for the histogram of starts.
const (
	sourceWarm    = "warm"
	sourceCold    = "cold"
	sourcePending = "pending" // not ready within CreateWait
	sourceError   = "error"   // ended before it was ready
)

type metrics struct {
	requests *prometheus.CounterVec   // route, code
	seconds  *prometheus.HistogramVec // route
	creates  *prometheus.HistogramVec // source
	panics   prometheus.Counter
	shed     prometheus.Counter
	register *prometheus.CounterVec // result
}

// newMetrics registers the package's metrics; a nil registerer leaves them unregistered.
func newMetrics(reg prometheus.Registerer, fleet *fleetCollector) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_api_requests_total", Help: "Requests by route and class of status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wallcrawler_api_request_seconds", Help: "Time to answer, without upgraded connections.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		creates: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wallcrawler_session_create_seconds", Help: "Time to answer a creation, by where the browser came from.",
			Buckets: []float64{.005, .01, .02, .03, .05, .075, .105, .15, .25, .5, 1, 1.5, 2.5, 5},
		}, []string{"source"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wallcrawler_api_panics_total", Help: "Requests whose handler panicked.",
		}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wallcrawler_api_shed_connections_total", Help: "Connections closed at once because open files were running out.",
		}),
		register: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_registrations_total", Help: "Registrations of containers by result.",
		}, []string{"result"}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.creates, m.panics, m.shed, m.register, fleet} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// fleetCollector counts the mirror's records at each scrape, so that the counts cannot drift.
type fleetCollector struct {
	mirror                                           Mirror
	sessions, containers, slots, queueDepth, viewAge *prometheus.Desc
}

func newFleetCollector(mirror Mirror) *fleetCollector {
	return &fleetCollector{
		mirror:     mirror,
		sessions:   prometheus.NewDesc("wallcrawler_sessions", "Sessions by phase, ended ones for five minutes.", []string{"phase"}, nil),
		containers: prometheus.NewDesc("wallcrawler_containers", "Containers by phase.", []string{"phase"}, nil),
		slots:      prometheus.NewDesc("wallcrawler_slots", "Slots of containers that are not gone; free ones only where they can be had.", []string{"state"}, nil),
		queueDepth: prometheus.NewDesc("wallcrawler_queue_depth", "Sessions that wait for a container.", nil, nil),
		viewAge:    prometheus.NewDesc("wallcrawler_view_age_seconds", "Time since the store was last read.", nil, nil),
	}
}

// Describe names what is collected.
func (f *fleetCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{f.sessions, f.containers, f.slots, f.queueDepth, f.viewAge} {
		out <- desc
	}
}

// Collect counts.
func (f *fleetCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	sessions := map[state.Phase]int{}
	for _, s := range f.mirror.Sessions() {
		sessions[s.Phase]++
	}
	for _, phase := range state.Phases() {
		gauge(f.sessions, float64(sessions[phase]), string(phase))
	}
	containers := map[state.ContainerPhase]int{}
	used, free := 0, 0
	for _, c := range f.mirror.Containers() {
		containers[c.Phase]++
		if c.Phase != state.Gone {
			used += c.Used()
		}
		if c.Phase == state.ContainerReady {
			free += c.Free()
		}
	}
	for _, phase := range state.ContainerPhases() {
		gauge(f.containers, float64(containers[phase]), string(phase))
	}
	gauge(f.slots, float64(used), "used")
	gauge(f.slots, float64(free), "free")
	gauge(f.queueDepth, float64(sessions[state.Pending]))
	gauge(f.viewAge, f.mirror.Age().Seconds())
}
