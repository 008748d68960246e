package observability

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// alarmHeading is how the description of an alarm in deploy/cdk ends.
var alarmHeading = regexp.MustCompile(`"AlarmDescription": ".*/docs/runbook\.md#(\w+)"`)

// TestRunbook: each alert has its heading, where its runbook_url leads, and no heading is of an
// alert that has gone. That each alarm of deploy/cdk has one, its own tests say.
func TestRunbook(t *testing.T) {
	const host = "https://github.com/wallcrawler/wallcrawler/blob/main/"
	alerts := map[string]bool{}
	for _, g := range Groups() {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			alerts[r.Alert] = true
			if r.Summary == "" || r.Description == "" || r.For == "" || r.Labels["severity"] != "page" && r.Labels["severity"] != "ticket" {
				t.Errorf("%s lacks a text or its severity", r.Alert)
			}
			file, anchor, _ := strings.Cut(strings.TrimPrefix(Runbook(r.Alert), host), "#")
			page, err := os.ReadFile(filepath.Join("../..", file))
			if err != nil {
				t.Fatal(err)
			}
			found := ""
			for section := range strings.SplitSeq(string(page), "\n## ") {
				heading, _, _ := strings.Cut(section, "\n")
				if heading == r.Alert && strings.ToLower(heading) == anchor {
					found = section
				}
			}
			if !strings.Contains(found, "**Means.**") || !strings.Contains(found, "**Look at**") || !strings.Contains(found, "**Do**") {
				t.Errorf("%s: %s leads to no section that says what it means, what to look at and what to do", r.Alert, Runbook(r.Alert))
			}
		}
	}
	page, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile("../cdk/golden/default.template.json")
	if err != nil {
		t.Fatal(err)
	}
	alarms := map[string]bool{}
	for _, found := range alarmHeading.FindAllStringSubmatch(string(template), -1) {
		alarms[found[1]] = true
	}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		heading, _, _ := strings.Cut(section, "\n")
		if !alerts[heading] && !alarms[strings.ToLower(heading)] {
			t.Errorf("docs/runbook.md has a section %s, of which there is no alert", heading)
		}
	}
}

// TestLogsThatTheRunbookNames: what it tells to look for in the logs is what the code says.
func TestLogsThatTheRunbookNames(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"api", "api/auth", "cmd/wallcrawler", "controller", "proxy", "state", "state/redisstore"} {
		files, err := filepath.Glob("../../" + dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
	}
	page, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "- logs") {
			continue
		}
		said, _, _ := strings.Cut(line, ";") // after it comes something else to look at
		for i, word := range strings.Split(said, "`") {
			if i%2 == 0 || word == "warn" || word == "error" {
				continue
			}
			named++
			if !strings.Contains(code.String(), `"`+word+`"`) {
				t.Errorf("the runbook tells to look for %q in the logs, and nothing says so", word)
			}
		}
	}
	if named == 0 {
		t.Error("the runbook names no log messages, or this test does not find them")
	}
}
