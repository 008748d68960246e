package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api/emf"
	"github.com/wallcrawler/wallcrawler/deploy/observability"
)

// TestObservability has a real Prometheus, with our rules, watch the real program at work.
func TestObservability(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Fatalf("%v: `make test` installs it on Debian (package prometheus); elsewhere get it from prometheus.io", err)
	}
	s := startService(t, serviceOptions{})
	created := s.alice.create(t, nil)
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)

	catalogue := observability.Catalogue()
	t.Run("the catalogue is what a scrape shows", func(t *testing.T) {
		scraped := parseScrape(string(call(t, http.MethodGet, s.url+"/metrics", nil).body))
		known := map[string]observability.Metric{}
		for _, m := range catalogue {
			known[m.Name] = m
		}
		for name, got := range scraped {
			want, ok := known[name]
			if !ok {
				t.Errorf("%s is not in the catalogue of deploy/observability", name)
				continue
			}
			if got.Type != want.Type || got.Help != want.Help || !slices.Equal(got.Labels, want.Labels) {
				t.Errorf("%s is\n%+v, the catalogue has\n%+v", name, got, want)
			}
		}
		for name := range known {
			if _, ok := scraped[name]; !ok {
				t.Errorf("%s is in the catalogue, and in no scrape", name)
			}
		}
	})
	t.Run("rules, dashboard and documents name metrics that exist", func(t *testing.T) {
		everyMetricExists(t, catalogue)
	})

	t.Run("rules, dashboard and documents select what there can be", func(t *testing.T) {
		all, selectors := seriesOf(string(call(t, http.MethodGet, s.url+"/metrics", nil).body)), 0
		for where, text := range observabilityTexts(t) {
			selectors += len(selector.FindAllString(text, -1))
			for _, problem := range strangers(text, all) {
				t.Errorf("%s: %s", where, problem)
			}
		}
		if selectors < 100 {
			t.Errorf("only %d selectors were found", selectors)
		}
	})

	p := startPrometheus(t, s.port)
	t.Run("each rule can be evaluated", func(t *testing.T) {
		eventually(t, time.Minute, "all rules are healthy", func() error {
			var answer struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
			if err := p.ask("/api/v1/rules", nil, &answer); err != nil {
				return err
			}
			n := 0
			for _, g := range answer.Groups {
				for _, r := range g.Rules {
					n++
					if r.Health != "ok" {
						return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
					}
				}
			}
			if want := strings.Count(observability.RulesFile(), "\n        expr: "); n != want {
				return fmt.Errorf("there are %d rules, not %d", n, want)
			}
			return nil
		})
	})
	t.Run("each query of the dashboard finds something", func(t *testing.T) {
		for _, expr := range observability.Queries() {
			expr = strings.NewReplacer("$job", "wallcrawler", "$__rate_interval", "1m").Replace(expr)
			eventually(t, time.Minute, expr, func() error {
				var answer struct{ Result []any }
				if err := p.ask("/api/v1/query", url.Values{"query": {expr}}, &answer); err != nil {
					return err
				}
				if len(answer.Result) == 0 {
					return errors.New("it finds nothing")
				}
				return nil
			})
		}
	})
	t.Run("nothing fires where all is well", func(t *testing.T) {
		var answer struct{ Result []any }
		if err := p.ask("/api/v1/query", url.Values{"query": {`ALERTS{alertstate="firing"}`}}, &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Result) > 0 {
			t.Errorf("there fires %v", answer.Result)
		}
	})
	t.Run("the loss of a replica is seen", func(t *testing.T) {
		if err := s.process.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "WallcrawlerReplicaDown is pending", func() error {
			var answer struct{ Result []any }
			if err := p.ask("/api/v1/query", url.Values{"query": {`ALERTS{alertname="WallcrawlerReplicaDown",job="wallcrawler"}`}}, &answer); err != nil {
				return err
			}
			if len(answer.Result) == 0 {
				return errors.New("it is not")
			}
			return nil
		})
	})
}

// parseScrape reads our metrics from Prometheus' text format.
func parseScrape(text string) map[string]observability.Metric {
	found := map[string]observability.Metric{}
	label := regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP wallcrawler_"); ok {
			name, help, _ := strings.Cut("wallcrawler_"+rest, " ")
			found[name] = observability.Metric{Name: name, Help: help}
		} else if rest, ok := strings.CutPrefix(line, "# TYPE wallcrawler_"); ok {
			name, kind, _ := strings.Cut("wallcrawler_"+rest, " ")
			m := found[name]
			m.Type = kind
			found[name] = m
		} else if strings.HasPrefix(line, "wallcrawler_") {
			end := strings.IndexAny(line, "{ ")
			name := line[:end]
			if _, ok := found[name]; !ok {
				name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			}
			m := found[name]
			if closing := strings.LastIndex(line, "}"); closing > 0 {
				for _, l := range label.FindAllStringSubmatch(line[end:closing], -1) {
					if l[1] != "le" && !slices.Contains(m.Labels, l[1]) {
						m.Labels = append(m.Labels, l[1])
					}
				}
			}
			slices.Sort(m.Labels)
			found[name] = m
		}
	}
	return found
}

// everyMetricExists checks names both ways.
func everyMetricExists(t *testing.T, catalogue []observability.Metric) {
	known := map[string]bool{}
	for _, m := range catalogue {
		known[m.Name] = true
		if m.Type == "histogram" {
			known[m.Name+"_bucket"], known[m.Name+"_sum"], known[m.Name+"_count"] = true, true, true
		}
	}
	texts := observabilityTexts(t)
	metric := regexp.MustCompile(`\bwallcrawler_[a-z0-9_]+[a-z0-9]`)
	for where, text := range texts {
		for _, name := range metric.FindAllString(text, -1) {
			if !known[name] {
				t.Errorf("%s: %s is no metric of the service", where, name)
			}
		}
	}
	for _, m := range catalogue {
		if !strings.Contains(texts["the dashboard"], m.Name) {
			t.Errorf("%s is not on the dashboard", m.Name)
		}
	}
}

// observabilityTexts are all texts that name metrics, by where they are.
func observabilityTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{"the dashboard": observability.Dashboard(), "the rules": observability.RulesFile(),
		"CloudWatch's": strings.Join(emf.Selectors(), "\n")}
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(documents, "../README.md", "../CONTRIBUTING.md", "../charts/wallcrawler/README.md", "../charts/wallcrawler/values.yaml", "../charts/wallcrawler/templates/scaling.yaml", "../deploy/observability/README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

type prometheus struct{ url string }

// startPrometheus starts one that scrapes a service and evaluates our rules, each second.
func startPrometheus(t *testing.T, target int) prometheus {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(observability.RulesFile()), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: wallcrawler
    static_configs: [{targets: ["127.0.0.1:%d"]}]
`, target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	start(t, program{name: "prometheus", path: path, args: []string{"--config.file=" + filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=warn"}, env: []string{"PATH=/usr/bin:/bin"}, dir: dir})
	p := prometheus{"http://" + address}
	eventually(t, time.Minute, "Prometheus has scraped the service", func() error {
		var answer struct {
			ActiveTargets []struct{ Health, LastError string }
		}
		if err := p.ask("/api/v1/targets", nil, &answer); err != nil {
			return err
		}
		if len(answer.ActiveTargets) != 1 || answer.ActiveTargets[0].Health != "up" {
			return fmt.Errorf("its targets are %+v", answer.ActiveTargets)
		}
		return nil
	})
	return p
}

// ask reads data from Prometheus' API.
func (p prometheus) ask(path string, values url.Values, into any) error {
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Get(p.url + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}
