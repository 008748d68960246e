// Package emf prints a replica's most important metrics for CloudWatch, once a minute: a line
// of JSON in Embedded Metric Format, of which CloudWatch Logs makes metrics without any call.
package emf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Namespace is what CloudWatch files the metrics under.
const Namespace = "WallCrawler"

// DefaultEvery is how often a line is printed: the finest that CloudWatch keeps by default.
const DefaultEvery = time.Minute

// Config is what a Printer runs with. Gatherer and Out are required.
type Config struct {
	Gatherer   prometheus.Gatherer
	Out        io.Writer
	Deployment string        // the only dimension, so that CloudWatch sums replicas up
	Replica    string        // in the line, for people
	Every      time.Duration // zero: DefaultEvery
	Log        *slog.Logger  // nil: none
}

// Printer prints.
type Printer struct {
	cfg  Config
	last map[string]float64 // the counters at the line before
}

// New returns a printer. Run starts it.
func New(cfg Config) *Printer {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Printer{cfg: cfg, last: map[string]float64{}}
}

// Run prints a line at each interval until ctx ends, and a last one then, so that what was
// counted since is not lost. It returns ctx's error.
func (p *Printer) Run(ctx context.Context) error {
	p.print(io.Discard) // the first line tells what happens from now on
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.print(p.cfg.Out)
			return ctx.Err()
		case <-tick.C:
			p.print(p.cfg.Out)
		}
	}
}

// print gathers and writes one line. Metrics that cannot be had are left out for once.
func (p *Printer) print(out io.Writer) {
	now, err := p.gather()
	if err != nil {
		p.cfg.Log.Warn("gathering metrics for CloudWatch", "error", err)
	}
	if now == nil {
		return
	}
	line, err := json.Marshal(p.line(now, time.Now()))
	if err == nil {
		_, err = out.Write(append(line, '\n'))
	}
	if err != nil {
		p.cfg.Log.Warn("printing metrics for CloudWatch", "error", err)
	}
}

// gather reads what the metrics below are made of. Both results may be given.
func (p *Printer) gather() (map[string]float64, error) {
	families, err := p.cfg.Gatherer.Gather()
	if len(families) == 0 {
		return nil, errors.Join(err, errors.New("there are none"))
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, source := range sources()[family.GetName()] {
			sum := 0.0
			for _, m := range family.GetMetric() {
				labels := map[string]string{}
				for _, pair := range m.GetLabel() {
					labels[pair.GetName()] = pair.GetValue()
				}
				if source.counts(labels) {
					sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() // it is one of them
				}
			}
			values[source.key] += sum
		}
	}
	return values, err
}

// line makes one line of what was gathered now and before.
func (p *Printer) line(now map[string]float64, at time.Time) map[string]any {
	type name struct {
		Name string
		Unit string
	}
	type directive struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []name
	}
	line := map[string]any{"Deployment": p.cfg.Deployment, "Replica": p.cfg.Replica}
	var names []name
	for _, m := range Metrics() {
		value := 0.0
		known := false
		for _, key := range m.of {
			v, there := now[key]
			known = known || there
			value += v
		}
		if !known {
			continue
		}
		if m.change {
			value = max(0, value-p.before(m))
		}
		line[m.Name] = value
		names = append(names, name{m.Name, m.Unit})
	}
	maps.Copy(p.last, now) // what is missing once must not count again from the start
	line["_aws"] = map[string]any{
		"Timestamp":         at.UnixMilli(),
		"CloudWatchMetrics": []directive{{Namespace, [][]string{{"Deployment"}}, names}},
	}
	return line
}

func (p *Printer) before(m Metric) (sum float64) {
	for _, key := range m.of {
		sum += p.last[key]
	}
	return sum
}

// Metric is one of CloudWatch's.
type Metric struct {
	Name  string
	Unit  string // CloudWatch's: Count or Seconds
	About string

	of     []string // keys of sources; their values are added up
	change bool     // since the line before; else the value now
}

// Metrics lists what is printed.
func Metrics() []Metric {
	return []Metric{
		{Name: "RelayConnections", Unit: "Count", About: "clients joined to a browser through this replica", of: []string{"joined"}},
		// Every client that was joined is joined still or was closed.
		{Name: "Handshakes", Unit: "Count", About: "clients joined since the line before", of: []string{"joined", "closed"}, change: true},
		{Name: "Refused", Unit: "Count", About: "clients refused before the upgrade since", of: []string{"refused"}, change: true},
		{Name: "Leader", Unit: "Count", About: "1 on the replica that leads", of: []string{"leader"}},
		{Name: "QueueDepth", Unit: "Count", About: "sessions that wait for a container", of: []string{"queue"}},
		{Name: "SlotsUsed", Unit: "Count", About: "slots of containers in use", of: []string{"slots used"}},
		{Name: "SlotsFree", Unit: "Count", About: "slots to be had", of: []string{"slots free"}},
		{Name: "Containers", Unit: "Count", About: "containers that take sessions", of: []string{"containers"}},
		{Name: "ViewAge", Unit: "Seconds", About: "time since Redis was last read", of: []string{"view"}},
		{Name: "SessionsEnded", Unit: "Count", About: "sessions ended since, counted by the leader", of: []string{"ended"}, change: true},
		{Name: "SessionsLost", Unit: "Count", About: "those of them that failed, crashed or lost their container", of: []string{"lost"}, change: true},
		{Name: "EcsErrors", Unit: "Count", About: "calls of ECS that failed, were throttled or refused since", of: []string{"ecs"}, change: true},
		{Name: "Panics", Unit: "Count", About: "requests that met a fault of ours since", of: []string{"panics"}, change: true},
	}
}

// source is a selection of the series of one family.
type source struct {
	key    string
	label  string // empty: all series count
	values []string
}

func (s source) counts(labels map[string]string) bool {
	return s.label == "" || slices.Contains(s.values, labels[s.label])
}

// Selectors are the series that the metrics are made of, as PromQL would select them, sorted.
func Selectors() []string {
	var all []string
	for family, selections := range sources() {
		for _, s := range selections {
			matcher := ""
			if s.label != "" {
				matcher = fmt.Sprintf("%s=~%q", s.label, strings.Join(s.values, "|"))
			}
			all = append(all, family+"{"+matcher+"}")
		}
	}
	slices.Sort(all)
	return all
}

// sources are what the metrics are made of, by the name of their family.
func sources() map[string][]source {
	return map[string][]source{
		"wallcrawler_relay_connections":   {{key: "joined"}},
		"wallcrawler_relay_closed_total":  {{key: "closed"}},
		"wallcrawler_relay_refused_total": {{key: "refused"}},
		"wallcrawler_leader":              {{key: "leader"}},
		"wallcrawler_queue_depth":         {{key: "queue"}},
		"wallcrawler_slots":               {{"slots used", "state", []string{"used"}}, {"slots free", "state", []string{"free"}}},
		"wallcrawler_containers":          {{"containers", "phase", []string{"ready"}}},
		"wallcrawler_view_age_seconds":    {{key: "view"}},
		"wallcrawler_session_end_total":   {{key: "ended"}, {"lost", "reason", []string{"failed", "browser_crashed", "container_lost", "stopped_externally"}}},
		"wallcrawler_ecs_calls_total":     {{"ecs", "result", []string{"throttled", "refused", "error"}}},
		"wallcrawler_api_panics_total":    {{key: "panics"}},
	}
}
