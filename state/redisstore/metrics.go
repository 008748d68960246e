package redisstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// metrics counts what the scripts did. Labels come from closed sets: the scripts' names and
// the refusals that they know.
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// newMetrics registers with reg; nil keeps them to ourselves. Each script's successes and
// errors are there from the start: a counter's first step from nothing is seen by no rate.
func newMetrics(reg prometheus.Registerer, scripts map[string]*redis.Script) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_store_writes_total",
			Help: "Writes to the control records by script and result.",
		}, []string{"script", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wallcrawler_store_write_seconds",
			Help:    "Time from sending a script to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 10),
		}, []string{"script"}),
	}
	for script := range scripts {
		m.calls.WithLabelValues(script, "ok")
		m.calls.WithLabelValues(script, "error")
	}
	if reg != nil {
		reg.MustRegister(m.calls, m.seconds)
	}
	return m
}

func (m *metrics) count(script, result string, since time.Time) {
	m.calls.WithLabelValues(script, result).Inc()
	m.seconds.WithLabelValues(script).Observe(time.Since(since).Seconds())
}
