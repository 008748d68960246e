package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	recorded = "controller/sim/mutants/seeds.txt"
	page     = "docs/reliability.md"

	tableBegins = "<!-- planted bugs: written by make mutants and go generate -->\n"
	tableEnds   = "<!-- end of the planted bugs -->\n"
)

// readSeeds reads which seed shows which bug.
func readSeeds() (map[string]sighting, error) {
	seeds := map[string]sighting{}
	file, err := os.Open(recorded)
	if os.IsNotExist(err) {
		return seeds, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), "\t"); len(fields) == 3 {
			seeds[fields[2]] = sighting{fields[0], fields[1]}
		}
	}
	return seeds, lines.Err()
}

func writeSeeds(seeds map[string]sighting) error {
	var text strings.Builder
	for _, m := range mutants {
		if s := seeds[m.name]; s.seed != "" {
			fmt.Fprintf(&text, "%s\t%s\t%s\n", s.seed, s.rule, m.name)
		}
	}
	return os.WriteFile(recorded, []byte(text.String()), 0o644)
}

// writeTable writes the table of planted bugs in the page anew.
func writeTable(seeds map[string]sighting) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table: it stands between %q and %q", page, tableBegins, tableEnds)
	}
	return os.WriteFile(page, []byte(before+tableBegins+table(seeds)+tableEnds+after), 0o644)
}

func table(seeds map[string]sighting) string {
	var text strings.Builder
	text.WriteString("\n| planted bug | in | falls |\n|---|---|---|\n")
	for _, m := range mutants {
		var files []string
		for _, e := range m.edits {
			if file := "`" + e.file + "`"; !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
		falls := "nothing yet"
		if s := seeds[m.name]; m.by != (net{}) {
			falls = "`" + m.by.String() + "`"
		} else if s.seed != "" {
			falls = fmt.Sprintf("rule %s in the world of seed %s", s.rule, s.seed)
		}
		fmt.Fprintf(&text, "| %s | %s | %s |\n", m.name, strings.Join(files, ", "), falls)
	}
	text.WriteString("\n")
	return text.String()
}
