package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// The store's clock may be set back: an epoch, which never goes back, is ahead of it then.
func TestEndsAreCountedWhateverTheClockSays(t *testing.T) {
	epoch := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	live := func(id string) *state.Session { return &state.Session{ID: id, Phase: state.Ready} }
	ended := func(id string, at time.Duration) *state.Session {
		return &state.Session{ID: id, Phase: state.Ended, EndedAt: epoch.Add(at)}
	}
	type look struct {
		now  time.Duration // since the epoch
		of   []*state.Session
		want []string
	}
	for name, looks := range map[string][]look{
		"what ends under the reign, with the clock set back before": {
			{-time.Hour, []*state.Session{live("a")}, nil},
			{-time.Hour + time.Second, []*state.Session{ended("a", -time.Hour)}, []string{"a"}},
			{-time.Hour + 2*time.Second, []*state.Session{ended("a", -time.Hour)}, nil},
		},
		"what ends under the reign, with the clock set back in it": {
			{time.Second, []*state.Session{live("a")}, nil},
			{-time.Hour, []*state.Session{ended("a", -time.Hour)}, []string{"a"}},
		},
		"what ended under a leader before, with the clock set back since": {
			{-time.Hour, []*state.Session{ended("a", -time.Minute), ended("b", time.Minute)}, nil},
			{2 * time.Minute, []*state.Session{ended("a", -time.Minute), ended("b", time.Minute)}, nil},
		},
		"what ended between the lead and the first look": {
			{time.Minute, []*state.Session{ended("a", -time.Second), ended("b", time.Second)}, []string{"b"}},
		},
		"what a store that had lost it was given back": {
			{time.Minute, nil, nil},
			{2 * time.Minute, []*state.Session{ended("a", -time.Second), ended("b", 90*time.Second)}, []string{"b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := ends{since: epoch}
			for i, look := range looks {
				var got []string
				for _, s := range e.fresh(epoch.Add(look.now), look.of) {
					got = append(got, s.ID)
				}
				if !slices.Equal(got, look.want) {
					t.Errorf("look %d: counted %q, want %q", i+1, got, look.want)
				}
			}
		})
	}
}
