package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/state"
)

// linkMetrics are those of Links. With a nil registerer they go nowhere.
type linkMetrics struct {
	links  *prometheus.GaugeVec
	starts *prometheus.HistogramVec
	ready  *prometheus.HistogramVec
}

func newLinkMetrics(reg prometheus.Registerer) *linkMetrics {
	m := &linkMetrics{
		links: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_links",
			Help: "Containers that this replica owns, by the state of their link.",
		}, []string{"state"}),
		starts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wallcrawler_session_start_seconds",
			Help:    "Time from CREATE_SESSION to SESSION_READY, by where the browser came from.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"source"}),
		ready: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wallcrawler_session_ready_seconds",
			Help:    "From admission of a session until its browser was ready, by where the browser came from; observed once a session, by the owner of its container.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
		}, []string{"source"}),
	}
	for _, s := range linkStates() {
		m.links.WithLabelValues(string(s))
	}
	for _, source := range []string{sourceWarm, sourceCold} {
		m.starts.WithLabelValues(source)
		m.ready.WithLabelValues(source)
	}
	register(reg, m.links, m.starts, m.ready)
	return m
}

// The sources of a browser.
const (
	sourceWarm = "warm"
	sourceCold = "cold"
)

func (m *linkMetrics) moveLink(from, to linkState) {
	if from != "" {
		m.links.WithLabelValues(string(from)).Dec()
	}
	if to != "" {
		m.links.WithLabelValues(string(to)).Inc()
	}
}

func sourceOf(cold bool) string {
	if cold {
		return sourceCold
	}
	return sourceWarm
}

func (m *linkMetrics) started(cold bool, took time.Duration) {
	m.starts.WithLabelValues(sourceOf(cold)).Observe(took.Seconds())
}

// readied observes the whole start of a session, as its requester has waited for it. Both
// times are the store's; its clock may have been set back between them.
func (m *linkMetrics) readied(s *state.Session) {
	if s.SeenAt.IsZero() {
		return
	}
	m.ready.WithLabelValues(sourceOf(s.Cold)).Observe(max(0, s.ReadyAt.Sub(s.SeenAt)).Seconds())
}

// relayMetrics are those of a Relay. With a nil registerer they go nowhere.
type relayMetrics struct {
	refused *prometheus.CounterVec
	closed  *prometheus.CounterVec
	codes   *prometheus.CounterVec
	lasted  prometheus.Histogram
	holds   prometheus.Histogram
}

// Who ended a relayed connection.
const (
	closedByClient  = "client"
	closedByBackend = "backend"
	closedByDrain   = "drain"
	closedByStall   = "stalled" // the client took nothing any more
	closedByFault   = "fault"   // of ours
)

// stalledCode is what a client that took nothing any more was told.
const stalledCode = 1013

// knownCodes are the close codes that have a label of their own.
func knownCodes() []int { return []int{1000, 1001, 1002, 1005, 1008, 1009, 1011, 1012, 1013} }

func codeText(code int) string { return strconv.Itoa(code) }

func newRelayMetrics(reg prometheus.Registerer) *relayMetrics {
	m := &relayMetrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_relay_refused_total",
			Help: "Requests for a session that were refused before an upgrade, by reason.",
		}, []string{"reason"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_relay_closed_total",
			Help: "Relayed connections that have ended, by who ended them.",
		}, []string{"by"}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_relay_close_codes_total",
			Help: "Relayed connections that have ended, by the code of the close frame that came first; none: there was none.",
		}, []string{"code"}),
		lasted: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wallcrawler_relay_connection_seconds",
			Help:    "How long relayed connections were open.",
			Buckets: []float64{.1, 1, 10, 60, 300, 1800, 3600, 6 * 3600},
		}),
		holds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wallcrawler_relay_hold_seconds",
			Help:    "Time that requests waited for their session to become ready.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25},
		}),
	}
	for _, reason := range refusalReasons() {
		m.refused.WithLabelValues(reason)
	}
	for _, by := range []string{closedByClient, closedByBackend, closedByDrain, closedByStall, closedByFault} {
		m.closed.WithLabelValues(by)
	}
	for _, code := range append(knownCodes(), 0, 4000, 9999) {
		m.codes.WithLabelValues(codeClass(code))
	}
	register(reg, m.refused, m.closed, m.codes, m.lasted, m.holds)
	return m
}

func register(reg prometheus.Registerer, cs ...prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(cs...)
	}
}

// liveCollector reads a relay's connections and traffic at scrape, so that nothing is counted
// on the byte path twice.
type liveCollector struct {
	relay *Relay

	connections, bytes, messages *prometheus.Desc
}

func newLiveCollector(r *Relay) *liveCollector {
	return &liveCollector{
		relay: r,
		connections: prometheus.NewDesc("wallcrawler_relay_connections",
			"Clients joined to a browser now.", nil, nil),
		bytes: prometheus.NewDesc("wallcrawler_relay_bytes_total",
			"Bytes relayed, by where they went.", []string{"direction"}, nil),
		messages: prometheus.NewDesc("wallcrawler_relay_messages_total",
			"WebSocket messages relayed, by where they went.", []string{"direction"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *liveCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.connections
	out <- c.bytes
	out <- c.messages
}

// Collect implements prometheus.Collector.
func (c *liveCollector) Collect(out chan<- prometheus.Metric) {
	n, up, down := c.relay.totals()
	out <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(n))
	for direction, f := range map[string]struct{ bytes, messages uint64 }{
		"to_browser": {up.Bytes, up.Messages},
		"to_client":  {down.Bytes, down.Messages},
	} {
		out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(f.bytes), direction)
		out <- prometheus.MustNewConstMetric(c.messages, prometheus.CounterValue, float64(f.messages), direction)
	}
}
