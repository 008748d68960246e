package emf_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/api/emf"
)

// printed is a line as CloudWatch reads it.
type printed struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
	values map[string]any
}

func parse(t *testing.T, text []byte) (lines []printed) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var p printed
		if err := json.Unmarshal(line, &p); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := json.Unmarshal(line, &p.values); err != nil {
			t.Fatal(err)
		}
		delete(p.values, "_aws")
		lines = append(lines, p)
	}
	return lines
}

// service has some of the metrics that replicas have.
type service struct {
	joined prometheus.Gauge
	closed *prometheus.CounterVec
	slots  *prometheus.GaugeVec
	ends   *prometheus.CounterVec
}

func newService(reg prometheus.Registerer) *service {
	s := &service{
		joined: prometheus.NewGauge(prometheus.GaugeOpts{Name: "wallcrawler_relay_connections"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wallcrawler_relay_closed_total"}, []string{"by"}),
		slots:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wallcrawler_slots"}, []string{"state"}),
		ends:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wallcrawler_session_end_total"}, []string{"reason"}),
	}
	reg.MustRegister(s.joined, s.closed, s.slots, s.ends)
	return s
}

func TestEachLineTellsWhatIsAndWhatHasHappenedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		s := newService(registry)
		s.closed.WithLabelValues("client").Add(100) // before the first line: nobody's news
		s.joined.Set(7)

		var out bytes.Buffer
		printer := emf.New(emf.Config{Gatherer: registry, Out: &out, Deployment: "blue", Replica: "r1"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- printer.Run(ctx) }()
		synctest.Wait()
		if out.Len() != 0 {
			t.Fatalf("it has printed %s before a minute was over", out.String())
		}

		// Three come, two of whom go again with one that was there.
		s.joined.Set(7)
		s.closed.WithLabelValues("client").Add(2)
		s.closed.WithLabelValues("drain").Inc()
		s.slots.WithLabelValues("used").Set(3)
		s.slots.WithLabelValues("free").Set(5)
		s.ends.WithLabelValues("released").Add(4)
		s.ends.WithLabelValues("container_lost").Add(1)
		s.ends.WithLabelValues("failed").Add(2)
		<-time.After(time.Minute)
		synctest.Wait()
		<-time.After(time.Minute) // in which nothing happens
		synctest.Wait()
		s.ends.WithLabelValues("failed").Inc()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it has ended with %v", err)
		}

		lines := parse(t, out.Bytes())
		if len(lines) != 3 {
			t.Fatalf("there are %d lines, want one a minute and a last one:\n%s", len(lines), out.String())
		}
		want := []map[string]any{
			{"Deployment": "blue", "Replica": "r1", "RelayConnections": 7.0, "Handshakes": 3.0, "SlotsUsed": 3.0, "SlotsFree": 5.0, "SessionsEnded": 7.0, "SessionsLost": 3.0},
			{"Deployment": "blue", "Replica": "r1", "RelayConnections": 7.0, "Handshakes": 0.0, "SlotsUsed": 3.0, "SlotsFree": 5.0, "SessionsEnded": 0.0, "SessionsLost": 0.0},
			{"Deployment": "blue", "Replica": "r1", "RelayConnections": 7.0, "Handshakes": 0.0, "SlotsUsed": 3.0, "SlotsFree": 5.0, "SessionsEnded": 1.0, "SessionsLost": 1.0},
		}
		for i, line := range lines {
			if diff := cmp.Diff(want[i], line.values); diff != "" {
				t.Errorf("line %d differs (-want +got):\n%s", i, diff)
			}
			if len(line.AWS.CloudWatchMetrics) != 1 {
				t.Fatalf("line %d has %d directives", i, len(line.AWS.CloudWatchMetrics))
			}
			directive := line.AWS.CloudWatchMetrics[0]
			if directive.Namespace != emf.Namespace || !cmp.Equal(directive.Dimensions, [][]string{{"Deployment"}}) {
				t.Errorf("line %d is filed under %s %v", i, directive.Namespace, directive.Dimensions)
			}
			// CloudWatch drops a metric that is named and has no value, and whatever has none of these units.
			for _, m := range directive.Metrics {
				if _, there := line.values[m.Name].(float64); !there {
					t.Errorf("line %d names %s and does not tell it", i, m.Name)
				}
				if m.Unit != "Count" && m.Unit != "Seconds" {
					t.Errorf("line %d: %s is in %q", i, m.Name, m.Unit)
				}
			}
			if len(directive.Metrics) != len(line.values)-2 {
				t.Errorf("line %d names %d metrics and has values of %d", i, len(directive.Metrics), len(line.values)-2)
			}
		}
		if got, want := lines[1].AWS.Timestamp, begin.Add(2*time.Minute).UnixMilli(); got != want {
			t.Errorf("the second line is of %d, want %d", got, want)
		}
	})
}

// docs/cloudwatch.md is what alarms and dashboards are made by.
func TestTheDocumentTellsOfEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/cloudwatch.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(page), -1) {
		told[row[1]] = row[2]
	}
	printed := map[string]string{}
	for _, m := range emf.Metrics() {
		printed[m.Name] = m.Unit
	}
	if diff := cmp.Diff(printed, told); diff != "" {
		t.Errorf("the table differs from what is printed (-printed +told):\n%s", diff)
	}
}

// A family that cannot be had once must not be counted from the start when it is there again.
func TestWhatWasMissingIsNotCountedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		s := newService(registry)
		s.ends.WithLabelValues("failed").Add(100)
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- emf.New(emf.Config{Gatherer: registry, Out: &out, Deployment: "blue", Replica: "r1"}).Run(ctx)
		}()
		synctest.Wait()
		registry.Unregister(s.ends)
		<-time.After(time.Minute)
		synctest.Wait()
		registry.MustRegister(s.ends)
		<-time.After(time.Minute)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it has ended with %v", err)
		}
		lines := parse(t, out.Bytes())
		if _, there := lines[0].values["SessionsLost"]; there {
			t.Error("what could not be had is told")
		}
		if got := lines[1].values["SessionsLost"]; got != 0.0 {
			t.Errorf("SessionsLost is %v, want 0", got)
		}
	})
}
