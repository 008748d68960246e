package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
)

// series is one line of a scrape: its labels, and its name as __name__.
type series map[string]string

var (
	sample   = regexp.MustCompile(`^(wallcrawler_\w+)(?:\{(.*)\})? \S+$`)
	pair     = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
	selector = regexp.MustCompile(`\b(wallcrawler_\w+)\{([^{}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*\\?"([^"\\]*)\\?"`)
)

// seriesOf reads our series from Prometheus' text format.
func seriesOf(scrape string) []series {
	var all []series
	for line := range strings.Lines(scrape) {
		m := sample.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		s := series{"__name__": m[1]}
		for _, p := range pair.FindAllStringSubmatch(m[2], -1) {
			s[p[1]] = p[2]
		}
		all = append(all, s)
	}
	return all
}

// strangers gives the selectors of an expression that ask for labels or values that no series
// has. The service makes each series whose labels are of a closed set when it starts, so what is
// not there can never be. What is to be left out must be there as well: else it is misspelt.
func strangers(expression string, all []series) (found []string) {
	for _, s := range selector.FindAllStringSubmatch(expression, -1) {
		wanted := []series{{"__name__": s[1]}}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if m[1] == "job" || m[1] == "instance" { // Prometheus' own
				continue
			}
			values := []string{m[3]}
			if strings.HasSuffix(m[2], "~") {
				values = strings.Split(m[3], "|")
			}
			var more []series
			for _, w := range wanted {
				for _, v := range values {
					if m[1] == "le" {
						v = strings.TrimSuffix(v, ".0") // as Prometheus 3 writes a whole bound
					}
					w := maps.Clone(w)
					w[m[1]] = v
					more = append(more, w)
				}
			}
			wanted = more
		}
		for _, w := range wanted {
			if !w.among(all) {
				found = append(found, fmt.Sprintf("%s: there is no series %v", s[0], map[string]string(w)))
			}
		}
	}
	return found
}

func (s series) among(all []series) bool {
	for _, other := range all {
		same := true
		for name, value := range s {
			same = same && other[name] == value
		}
		if same {
			return true
		}
	}
	return false
}

func TestSelectorsAreComparedWithTheScrape(t *testing.T) {
	t.Parallel()
	all := seriesOf(`# TYPE wallcrawler_ends_total counter
wallcrawler_ends_total{reason="failed",why="no \"room\""} 0
wallcrawler_ends_total{reason="idle",why=""} 3
wallcrawler_wait_seconds_bucket{le="5"} 1
wallcrawler_leader 1
`)
	if len(all) != 4 {
		t.Fatalf("read %v", all)
	}
	for expression, n := range map[string]int{
		`sum(rate(wallcrawler_ends_total{job="$job",reason="failed"}[5m]))`:  0,
		`wallcrawler_ends_total{reason=~"failed|idle"} > wallcrawler_leader`: 0,
		`wallcrawler_ends_total{reason!="idle"}`:                             0,
		`wallcrawler_wait_seconds_bucket{le="5"}`:                            0,
		`wallcrawler_ends_total{reason="failure"}`:                           1,
		`wallcrawler_ends_total{reason=~"failed|idel|lost"}`:                 2,
		`wallcrawler_ends_total{reason!="idel"}`:                             1,
		`wallcrawler_ends_total{cause="failed"}`:                             1,
		`wallcrawler_ends_total{reason="idle",why="x"}`:                      1, // each is there, but not together
		`wallcrawler_wait_seconds_bucket{le="4"}`:                            1,
		`wallcrawler_leader{} + wallcrawler_ends_total{reason="a"}`:          1,
		`"expr": "wallcrawler_ends_total{reason=\"failure\"}"`:               1, // in JSON
	} {
		if got := strangers(expression, all); len(got) != n {
			t.Errorf("%s: %q, want %d", expression, got, n)
		}
	}
}
