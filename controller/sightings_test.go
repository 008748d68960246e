package controller

import (
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

func TestAMissingDocumentIsJudgedByWhenItWasLastSeen(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(minutes time.Duration) time.Time { return now.Add(-minutes * time.Minute) }
	for _, tc := range []struct {
		name                      string
		found, former, seen, lost time.Time
		want                      time.Duration
	}{
		{name: "by this leader", found: ago(1), former: ago(9), seen: ago(20), want: time.Minute},
		{name: "by the leader before", former: ago(5), seen: ago(20), want: 5 * time.Minute},
		{name: "at its admission, after the last listing", former: ago(5), seen: ago(2), want: 2 * time.Minute},
		{name: "by nobody who is known", seen: ago(20)},
		{name: "before the store lost data", found: ago(9), former: ago(20), seen: ago(30), lost: ago(1)},
		{name: "after the store lost data", found: ago(9), former: ago(20), seen: ago(30), lost: ago(10), want: 9 * time.Minute},
	} {
		s := newSightings()
		s.former = tc.former
		x := &state.Session{ID: "s", SeenAt: tc.seen}
		if !tc.found.IsZero() {
			s.see("s", tc.found)
		}
		s.miss(x, now, tc.lost)
		s.miss(x, now.Add(time.Hour), tc.lost) // however long it takes to act
		if got := s.unseen["s"]; got != tc.want {
			t.Errorf("seen %s: unseen for %s, not %s", tc.name, got, tc.want)
		}
		s.see("s", now)
		if _, missing := s.unseen["s"]; missing {
			t.Errorf("seen %s: found again, and still missed", tc.name)
		}
	}
}
