package redisstore

import (
	"strings"
	"testing"

	"github.com/wallcrawler/wallcrawler/state"
)

// A cluster runs a script only if all its keys are in one slot: they must share the tag.
func TestKeysOfEveryScriptShareTheTag(t *testing.T) {
	scripts, err := loadScripts()
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{keys: newKeys("d")}
	for name := range scripts {
		if alone(name) {
			continue
		}
		c := call{script: name, container: "c1", session: "s1", keys: []string{s.keys.session("s2")}}
		if strings.HasPrefix(name, "launch_") {
			c = s.launchCall(name, state.Authority{}, "l1")
		}
		for _, key := range s.keysOf(c) {
			if !strings.HasPrefix(key, "wallcrawler:{d}:") {
				t.Errorf("script %s takes the key %s outside the tag", name, key)
			}
		}
	}
	k := &s.keys
	for _, key := range []string{k.leader, k.epoch, k.seq, k.incarnation, k.leaving, k.sessions, k.containers} {
		if !strings.HasPrefix(key, "wallcrawler:{d}:") {
			t.Errorf("key %s is outside the tag", key)
		}
	}
}

// Each script says what it takes and gives, and none takes JSON apart.
func TestScriptsSayWhatTheyTakeAndGive(t *testing.T) {
	files, err := sources.ReadDir("lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := sources.ReadFile("lua/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "-- KEYS") || !strings.Contains(string(text), "\n-- returns ") {
			t.Errorf("%s has no header", f.Name())
		}
		if strings.Contains(string(text), "cjson") {
			t.Errorf("%s parses JSON", f.Name())
		}
	}
}

func TestHintsSurviveTheStream(t *testing.T) {
	hints := []state.Hint{
		{Kind: state.KindSession, ID: "s1", Rev: 1795467938604123},
		{Kind: state.KindFleet, ID: "arn:aws:ecs:eu:1:task/c/1"},
		{Kind: state.KindAll},
	}
	var lines []string
	for _, h := range hints {
		lines = append(lines, hintLine(h))
	}
	got := parseHints(strings.Join(lines, "\n") + "\nrubbish\n")
	if len(got) != len(hints) {
		t.Fatalf("got %v", got)
	}
	for i := range hints {
		if got[i] != hints[i] {
			t.Errorf("got %v, want %v", got[i], hints[i])
		}
	}
}
