package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	replicaTicketLabel  = "replica\x00"
	replicaTicketPrefix = "wcr1"
	// replicaTicketLife is how far the clocks of two replicas and the way between them may
	// make a ticket seem old, or not yet made.
	replicaTicketLife = 30 * time.Second
	maxReplicaTicket  = 2048 // bytes
)

// ReplicaKeys makes and checks the tickets with which one replica passes a client on to
// another. A ticket is good for one session at one replica for half a minute.
type ReplicaKeys struct {
	keys [][]byte // the current one first
	now  func() time.Time
}

// replicaTicket is what a ticket says.
type replicaTicket struct {
	Replica string `json:"replica"` // that is to take the client in
	Session string `json:"session"`
	User    string `json:"user,omitempty"`
	At      int64  `json:"at"` // ms
}

// NewReplicaKeys derives the keys from the containers' secret. New tickets are made with the
// current one, those made with a previous one are still good. A nil now means time.Now.
func NewReplicaKeys(now func() time.Time, current Secret, previous ...Secret) (*ReplicaKeys, error) {
	if now == nil {
		now = time.Now
	}
	k := &ReplicaKeys{now: now}
	for _, secret := range append([]Secret{current}, previous...) {
		if err := secret.check("the secret for containers"); err != nil {
			return nil, err
		}
		key, err := secret.derive("replica-key")
		if err != nil {
			return nil, err
		}
		k.keys = append(k.keys, key)
	}
	return k, nil
}

// Ticket lets a client of the session in at the replica.
func (k *ReplicaKeys) Ticket(replica, session, user string) (string, error) {
	text, err := json.Marshal(replicaTicket{Replica: replica, Session: session, User: user, At: k.now().UnixMilli()})
	if err != nil {
		return "", err
	}
	body := base64.RawURLEncoding.EncodeToString(text)
	return replicaTicketPrefix + "." + body + "." + base64.RawURLEncoding.EncodeToString(sumTicket(k.keys[0], body)), nil
}

// Check tells for which user a ticket opens the session at the replica. The only error is
// state.ErrUnauthorized.
func (k *ReplicaKeys) Check(ticket, replica, session string) (user string, err error) {
	if len(ticket) > maxReplicaTicket {
		return "", state.ErrUnauthorized
	}
	prefix, rest, _ := strings.Cut(ticket, ".")
	body, sum, found := strings.Cut(rest, ".")
	if !found || prefix != replicaTicketPrefix {
		return "", state.ErrUnauthorized
	}
	given, err := base64.RawURLEncoding.Strict().DecodeString(sum)
	if err != nil {
		return "", state.ErrUnauthorized
	}
	good := false
	for _, key := range k.keys {
		if hmac.Equal(sumTicket(key, body), given) {
			good = true
		}
	}
	if !good {
		return "", state.ErrUnauthorized
	}
	var t replicaTicket
	text, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || json.Unmarshal(text, &t) != nil {
		return "", state.ErrUnauthorized
	}
	age := k.now().Sub(time.UnixMilli(t.At))
	if t.Replica != replica || t.Session != session || session == "" || age.Abs() > replicaTicketLife {
		return "", state.ErrUnauthorized
	}
	return t.User, nil
}

func sumTicket(key []byte, body string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(replicaTicketLabel))
	mac.Write([]byte(body))
	return mac.Sum(nil)
}

// PreviousLinkSecrets gives the secrets that a container may still hold which has registered
// before the keys were changed.
func (k *ContainerKeys) PreviousLinkSecrets(container, bootID string) []string {
	var secrets []string
	for _, key := range k.keys[1:] {
		secrets = append(secrets, key.sum(containerSecretLabel, container+"\x00"+bootID))
	}
	return secrets
}
