package main

import (
	"fmt"
	"strings"
	"time"
)

//go:generate sh -c "go run . config --reference markdown > ../../docs/configuration.md"
//go:generate sh -c "go run . config --reference json > ../../charts/wallcrawler/files/settings.json"

// entry is a setting of serve for programs, such as the chart, which checks names by it.
type entry struct {
	Env     []string `json:"env"`
	Key     string   `json:"key"`
	Default string   `json:"default"`
	Unit    string   `json:"unit"`
	Secret  bool     `json:"secret"`
}

func referenceEntries() []entry {
	var all []entry
	for _, s := range serveSettings() {
		all = append(all, entry{s.env, s.key, strings.Trim(s.standard(), "`"), strings.ReplaceAll(s.kind(), "`", ""), s.secret})
	}
	return all
}

// reference is docs/configuration.md: every setting, its default, its unit and its names.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Written by ` + "`make docs`" + ` from cmd/wallcrawler/settings.go: change it there. -->

Settings are read from defaults, then a file (` + "`--config` or `WALLCRAWLER_CONFIG`" + `: YAML, TOML or JSON, with the keys below), then the
environment. Each variable may also be written with the prefix ` + "`WALLCRAWLER_`" + `, which goes before the bare name. An empty
variable counts as not set. Unknown keys, unknown ` + "`WALLCRAWLER_…`" + ` variables and values of another type are refused at the
start, all at once. ` + "`wallcrawler config`" + ` prints what is in force and where each value came from, secrets hidden.

Times are written with their unit: ` + "`500ms`, `90s`, `2m`, `1h30m`" + `. A setting without a default is empty.

## The service: ` + "`wallcrawler serve`" + `
`)
	referTo(&b, serveSettings())
	b.WriteString("\n## The container side: `wallcrawler agent`\n")
	referTo(&b, agentSettings())
	return b.String()
}

// referTo writes tables of settings, one for each section.
func referTo(b *strings.Builder, settings []setting) {
	for i, s := range settings {
		if s.section != "" {
			fmt.Fprintf(b, "\n### %s\n", s.section)
		}
		if s.section != "" || i == 0 {
			b.WriteString("\n| variable | key in a file | default | value | what for |\n|---|---|---|---|---|\n")
		}
		names := "`" + strings.Join(s.env, "`, or `") + "`"
		value := s.kind()
		if s.secret {
			value += ", secret"
		}
		fmt.Fprintf(b, "| %s | `%s` | %s | %s | %s |\n", names, s.key, s.standard(), value, strings.ReplaceAll(s.help, "|", `\|`))
	}
}

// kind is what a setting's value is: its unit, or else its type.
func (s setting) kind() string {
	switch s.value.(type) {
	case time.Duration:
		return "time"
	case bool:
		return "`true` or `false`"
	case int:
		return "number: " + s.unit
	default:
		if s.unit != "" {
			return s.unit
		}
		return "text"
	}
}

// standard is the default as a reader would write it.
func (s setting) standard() string {
	switch v := s.value.(type) {
	case string:
		if v == "" {
			return ""
		}
		return "`" + v + "`"
	case time.Duration:
		return "`" + shortTime(v) + "`"
	default:
		return fmt.Sprintf("`%v`", v)
	}
}

// shortTime is a time without the zero units that Duration.String appends.
func shortTime(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
