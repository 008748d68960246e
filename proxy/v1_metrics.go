package proxy

import "github.com/prometheus/client_golang/prometheus"

// Why messages of v1 containers go no further.
const (
	dropStranger = "stranger" // about a session that the container does not hold
	dropUnasked  = "unasked"  // an answer that nobody waits for
	dropUnknown  = "unknown"  // of no known kind, or malformed
	dropNobody   = "nobody"   // no client is there
)

// envelopeMetrics are those of v1 sessions. With a nil registerer they go nowhere.
type envelopeMetrics struct {
	clients  prometheus.Gauge
	messages *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	bad      *prometheus.CounterVec
	mute     prometheus.Counter

	// of messages and bytes, looked up once
	upMessages, downMessages, upBytes, downBytes prometheus.Counter
}

func newEnvelopeMetrics(reg prometheus.Registerer) *envelopeMetrics {
	const up, down = "to_browser", "to_client"
	m := &envelopeMetrics{
		clients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wallcrawler_v1_clients",
			Help: "Clients attached to sessions of v1 containers now.",
		}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_v1_messages_total",
			Help: "Messages of v1 sessions, by where they went.",
		}, []string{"direction"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_v1_bytes_total",
			Help: "Bytes of messages of v1 sessions, by where they went.",
		}, []string{"direction"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_v1_dropped_total",
			Help: "Messages of v1 containers that went to no client, by reason.",
		}, []string{"reason"}),
		bad: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_v1_ignored_total",
			Help: "Messages of clients of v1 sessions that were ignored, by reason.",
		}, []string{"reason"}),
		mute: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wallcrawler_v1_mute_total",
			Help: "Links to v1 containers that were closed because the container had lost its voice.",
		}),
	}
	for _, reason := range []string{dropStranger, dropUnasked, dropUnknown, dropNobody} {
		m.dropped.WithLabelValues(reason)
	}
	for _, reason := range []verity{notJSON, notUTF8, nullJSON} {
		m.bad.WithLabelValues(string(reason))
	}
	m.upMessages, m.downMessages = m.messages.WithLabelValues(up), m.messages.WithLabelValues(down)
	m.upBytes, m.downBytes = m.bytes.WithLabelValues(up), m.bytes.WithLabelValues(down)
	register(reg, m.clients, m.messages, m.bytes, m.dropped, m.bad, m.mute)
	return m
}

func (m *envelopeMetrics) drop(reason string)    { m.dropped.WithLabelValues(reason).Inc() }
func (m *envelopeMetrics) ignored(reason verity) { m.bad.WithLabelValues(string(reason)).Inc() }

func (m *envelopeMetrics) fromClient(n int) {
	m.upMessages.Inc()
	m.upBytes.Add(float64(n))
}

func (m *envelopeMetrics) fromContainer(n int) {
	m.downMessages.Inc()
	m.downBytes.Add(float64(n))
}
