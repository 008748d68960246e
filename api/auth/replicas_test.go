package auth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

func replicaKeys(t *testing.T, now *time.Time, current auth.Secret, previous ...auth.Secret) *auth.ReplicaKeys {
	t.Helper()
	k, err := auth.NewReplicaKeys(func() time.Time { return *now }, current, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestATicketOpensOneSessionAtOneReplicaForAMoment(t *testing.T) {
	const old, current = auth.Secret("the-first-secret-of-containers"), auth.Secret("the-second-secret-of-containers")
	made := time.Unix(1_700_000_000, 0)
	now := made
	maker := replicaKeys(t, &now, current)
	ticket, err := maker.Ticket("r2", "ses_1", "u")
	if err != nil {
		t.Fatal(err)
	}
	prefix, rest, _ := strings.Cut(ticket, ".")
	body, sum, _ := strings.Cut(rest, ".")
	before, _ := replicaKeys(t, &now, old).Ticket("r2", "ses_1", "u")
	for name, c := range map[string]struct {
		ticket, replica, session string
		after                    time.Duration
		good                     bool
	}{
		"as it was made":              {ticket, "r2", "ses_1", 0, true},
		"half a minute old":           {ticket, "r2", "ses_1", 30 * time.Second, true},
		"made half a minute from now": {ticket, "r2", "ses_1", -30 * time.Second, true},
		"too old":                     {ticket, "r2", "ses_1", 31 * time.Second, false},
		"too new":                     {ticket, "r2", "ses_1", -31 * time.Second, false},
		"at another replica":          {ticket, "r3", "ses_1", 0, false},
		"for another session":         {ticket, "r2", "ses_2", 0, false},
		"for no session":              {ticket, "r2", "", 0, false},
		"with another sum":            {prefix + "." + body + "." + strings.Repeat("A", len(sum)), "r2", "ses_1", 0, false},
		"without a sum":               {prefix + "." + body, "r2", "ses_1", 0, false},
		"with an empty sum":           {prefix + "." + body + ".", "r2", "ses_1", 0, false},
		"with another prefix":         {"wcr2." + rest, "r2", "ses_1", 0, false},
		"with more behind it":         {ticket + ".x", "r2", "ses_1", 0, false},
		"with padding":                {ticket + "=", "r2", "ses_1", 0, false},
		"empty":                       {"", "r2", "ses_1", 0, false},
		"huge":                        {strings.Repeat("a", 1<<20), "r2", "ses_1", 0, false},
		"made with the secret before": {before, "r2", "ses_1", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			now := made.Add(c.after)
			user, err := replicaKeys(t, &now, current, old).Check(c.ticket, c.replica, c.session)
			switch {
			case c.good && (err != nil || user != "u"):
				t.Fatalf("refused: %v", err)
			case !c.good && !errors.Is(err, state.ErrUnauthorized):
				t.Fatalf("taken for %q: %v", user, err)
			}
		})
	}
	now = made
	if _, err := replicaKeys(t, &now, current).Check(before, "r2", "ses_1"); !errors.Is(err, state.ErrUnauthorized) {
		t.Errorf("a ticket of a secret that is not configured is taken: %v", err)
	}
	if _, err := auth.NewReplicaKeys(nil, "short"); err == nil {
		t.Error("a secret that can be guessed is taken")
	}
}

func TestPreviousLinkSecretsAreThoseBeforeARotation(t *testing.T) {
	const old, current = auth.Secret("the-first-secret-of-containers"), auth.Secret("the-second-secret-of-containers")
	before, err := auth.NewContainerKeys(old)
	if err != nil {
		t.Fatal(err)
	}
	after, err := auth.NewContainerKeys(current, old)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := after.PreviousLinkSecrets("c", "b"), []string{before.LinkSecret("c", "b")}; !slices.Equal(got, want) {
		t.Error("the secret that the container holds is not among those to try")
	}
	if len(before.PreviousLinkSecrets("c", "b")) != 0 {
		t.Error("a secret is tried that never was")
	}
}
