package ecs

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/prometheus/client_golang/prometheus"
)

// The operations of the API that are called.
const (
	opRun      = "RunTask"
	opStop     = "StopTask"
	opList     = "ListTasks"
	opDescribe = "DescribeTasks"
)

// The results of a call, as its metric's label says.
const (
	resultOK        = "ok"
	resultThrottled = "throttled"
	resultRefused   = "refused" // RunTask answered with failures and no task
	resultConflict  = "conflict"
	resultError     = "error"
)

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// newMetrics registers the metrics; without a registerer they count for nobody.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wallcrawler_ecs_calls_total",
			Help: "Calls of the ECS API by operation and result, each with its retries.",
		}, []string{"op", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wallcrawler_ecs_call_seconds",
			Help:    "Duration of calls of the ECS API, each with its retries.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}, []string{"op"}),
	}
	// From the start: a counter's first step from nothing is seen by no rate.
	for _, op := range []string{opRun, opStop, opList, opDescribe} {
		for _, result := range []string{resultOK, resultThrottled, resultError} {
			m.calls.WithLabelValues(op, result)
		}
	}
	m.calls.WithLabelValues(opRun, resultRefused)
	m.calls.WithLabelValues(opRun, resultConflict)
	if reg != nil {
		reg.MustRegister(m.calls, m.seconds)
	}
	return m
}

// resultOf sorts a call's outcome into the closed set above.
func resultOf(out any, err error) string {
	if err == nil {
		if run, ok := out.(*ecs.RunTaskOutput); ok && len(run.Tasks) == 0 {
			return resultRefused
		}
		return resultOK
	}
	switch {
	case throttled(err):
		return resultThrottled
	case conflicting(err) != nil:
		return resultConflict
	default:
		return resultError
	}
}
