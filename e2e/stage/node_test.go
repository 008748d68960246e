package stage

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// TestNodeTestsLosesNone: a file that ends its process takes its last tests with it, and Node's runner
// is content.
func TestNodeTestsLosesNone(t *testing.T) {
	reporter, err := filepath.Abs("../../deploy/report.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		want map[string]bool // by name, whether it has passed
	}{
		"all end": {
			`test('one', async (t) => { await t.test('inner', () => {}); }); test('two', () => {}); test('two', () => {});`,
			map[string]bool{"one": true, "inner": true, "two": true},
		},
		"one fails":            {`test('one', () => { throw new Error('x'); }); test('two', () => {});`, map[string]bool{"one": false, "two": true}},
		"an exit in the first": {`test('one', () => process.exit(0)); test('two', () => {});`, map[string]bool{"case.test.mjs": false}},
		"an exit later": {
			`test('one', () => {}); setTimeout(() => process.exit(0), 0); test('two', () => new Promise((r) => setTimeout(r, 1e6)));`,
			map[string]bool{"one": true, "two": false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "case.test.mjs"), []byte("import { test } from 'node:test';\n"+c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			tests, err := NodeTests(t.Context(), dir, reporter, os.Environ(), "case.test.mjs")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for _, one := range tests {
				passed, again := got[filepath.Base(one.Name)]
				got[filepath.Base(one.Name)] = one.Passed && (passed || !again)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
