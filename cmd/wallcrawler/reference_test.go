package main

import (
	"os"
	"strings"
	"testing"
)

func TestGeneratedReferencesAreUpToDate(t *testing.T) {
	var entries strings.Builder
	if err := printJSON(&entries, referenceEntries()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"docs/configuration.md": reference(), "charts/wallcrawler/files/settings.json": entries.String()} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != want {
			t.Errorf("%s is not what the settings make of it: run `make docs` and commit it", name)
		}
	}
}

// TestReferenceHasEverySetting guards the page's usefulness: names, units and defaults.
func TestReferenceHasEverySetting(t *testing.T) {
	page := reference()
	for _, settings := range [][]setting{serveSettings(), agentSettings()} {
		for _, s := range settings {
			row := ""
			for line := range strings.Lines(page) {
				if strings.HasPrefix(line, "| `"+s.env[0]+"`") && strings.Contains(line, "| `"+s.key+"` |") {
					row = line
				}
			}
			for _, name := range s.env {
				if !strings.Contains(row, "`"+name+"`") {
					t.Errorf("%s: the page does not name %s", s.key, name)
				}
			}
			if _, number := s.value.(int); number && s.unit == "" {
				t.Errorf("%s: of what is it a number? Set unit", s.key)
			}
			if s.secret && !strings.Contains(row, ", secret |") {
				t.Errorf("%s: the page does not call it secret", s.key)
			}
		}
	}
	for _, want := range []string{"| `START_DEADLINE` | `start_deadline` | `2m` | time |", "| `MIN_CONTAINERS` | `min_containers` | `2` | number: containers |",
		"| `CONTAINER_TASK_DEF`, or `BROWSER_TASK_DEFINITION_ARN` |", "| `API_KEYS` | `api_keys` |  | comma list, secret |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}
