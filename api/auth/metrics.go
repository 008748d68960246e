package auth

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of reading a secret or checking a token.
const (
	resultGood    = "good"
	resultRefused = "refused"
	resultError   = "error"
)

// Kinds of session tokens, by their number of segments.
const (
	kindSigned    = "signed"
	kindEncrypted = "encrypted"
	kindOther     = "other"
)

// Metrics counts what this package does. A nil registerer makes one that nobody reads.
type Metrics struct {
	reads  *prometheus.CounterVec
	readAt *prometheus.GaugeVec
	tokens *prometheus.CounterVec
}

// NewMetrics registers the metrics of the package, once for all its parts.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_auth_secret_reads_total",
			Help: "Readings of a secret that may change, by secret and result; after an error the last good one is kept.",
		}, []string{"secret", "result"}),
		readAt: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wallcrawler_auth_secret_read_timestamp_seconds",
			Help: "When a secret that may change was last read well.",
		}, []string{"secret"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_auth_tokens_total",
			Help: "Session tokens checked, by kind and result.",
		}, []string{"kind", "result"}),
	}
	for _, kind := range []string{kindSigned, kindEncrypted, kindOther} {
		for _, result := range []string{resultGood, resultRefused} {
			m.tokens.WithLabelValues(kind, result)
		}
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.reads), reg.Register(m.readAt), reg.Register(m.tokens))
}
