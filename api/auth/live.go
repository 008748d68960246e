package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// minter is what tokens of either kind can do.
type minter interface {
	Verifier
	Mint(sessionID, userID string, expires time.Time) (string, error)
	// verify also tells whether the token might be good under a key that is not known here.
	verify(raw string) (c Claims, otherKey bool, err error)
}

var (
	_ minter = (*Tokens)(nil)
	_ minter = (*JWE)(nil)
)

// LiveTokens mints and verifies tokens under a secret that may change.
type LiveTokens struct {
	*rotated[minter]
	seen verified
}

// OpenTokens waits for a secret and makes Tokens of it.
func OpenTokens(ctx context.Context, cfg SecretConfig) (*LiveTokens, error) {
	r, err := openRotated(ctx, cfg, func(v Versions) (minter, error) { return NewTokens(v.Current, v.previous()...) })
	if err != nil {
		return nil, err
	}
	return &LiveTokens{rotated: r, seen: verified{now: time.Now}}, nil
}

// OpenJWE waits for a secret and makes JWE of it.
func OpenJWE(ctx context.Context, cfg SecretConfig) (*LiveTokens, error) {
	r, err := openRotated(ctx, cfg, func(v Versions) (minter, error) { return NewJWE(v.Current, v.previous()...) })
	if err != nil {
		return nil, err
	}
	return &LiveTokens{rotated: r, seen: verified{now: time.Now}}, nil
}

func (v Versions) previous() []Secret {
	if v.Previous == "" {
		return nil
	}
	return []Secret{v.Previous}
}

// Mint makes a token under the current secret.
func (t *LiveTokens) Mint(sessionID, userID string, expires time.Time) (string, error) {
	return t.get().Mint(sessionID, userID, expires)
}

// Verify gives the claims of a good token. One under an unknown key has the secret read again,
// within limits.
func (t *LiveTokens) Verify(raw string) (Claims, error) {
	seen := t.value.Load()
	if len(raw) > maxToken {
		return Claims{}, refuseToken()
	}
	digest := sha256.Sum256([]byte(raw))
	if claims, ok := t.seen.find(seen, digest); ok {
		return claims, nil
	}
	claims, otherKey, err := seen.value.verify(raw)
	if err == nil {
		t.seen.add(seen, digest, claims)
	}
	if err == nil || !otherKey {
		return claims, err
	}
	newest, changed := t.renew(seen)
	if !changed {
		return Claims{}, err
	}
	return newest.value.Verify(raw)
}

// KeyOverlap is how long the API keys of the previous version of a secret are still taken.
// Unlike other secrets a list of keys has its overlap in itself; and a key that was struck
// off must lose its power.
const KeyOverlap = 15 * time.Minute

// keyVersions are the API keys of a secret's versions.
type keyVersions struct {
	current, previous *Keys // previous may be nil
	until             time.Time
}

// LiveKeys knows the API keys of a secret that may change, and some fixed ones.
type LiveKeys struct {
	*rotated[keyVersions]
	now func() time.Time
}

// OpenKeys waits for a secret and makes Keys of it, beside fixed ones. A fixed key that the
// secret holds too keeps the name that it was given.
func OpenKeys(ctx context.Context, cfg SecretConfig, fixed ...Key) (*LiveKeys, error) {
	r, err := openRotated(ctx, cfg, func(v Versions) (keyVersions, error) { return keysOf(v, fixed) })
	if err != nil {
		return nil, err
	}
	return &LiveKeys{r, time.Now}, nil
}

func keysOf(v Versions, fixed []Key) (out keyVersions, err error) {
	listed, err := ParseKeyList(v.Current)
	if err != nil {
		return out, err
	}
	if out.current, err = NewKeys(mergeKeys(fixed, listed)...); err != nil {
		return out, err
	}
	if v.Previous == "" || v.Since.IsZero() {
		return out, nil
	}
	// A previous version of no use is none.
	if before, err := ParseKeyList(v.Previous); err == nil {
		if out.previous, err = NewKeys(mergeKeys(nil, before)...); err == nil {
			out.until = v.Since.Add(KeyOverlap)
		}
	}
	return out, nil
}

// mergeKeys drops keys that occurred before.
func mergeKeys(fixed, more []Key) []Key {
	seen := map[Secret]bool{}
	var out []Key
	for _, list := range [][]Key{fixed, more} {
		for _, key := range list {
			if !seen[key.Key] {
				seen[key.Key] = true
				out = append(out, key)
			}
		}
	}
	return out
}

// User names the user of a key.
func (k *LiveKeys) User(key Secret) (string, bool) {
	seen := k.value.Load()
	if user, known := seen.value.user(key, k.now()); known {
		return user, true
	}
	newest, changed := k.renew(seen)
	if !changed {
		return "", false
	}
	return newest.value.user(key, k.now())
}

func (k keyVersions) user(key Secret, now time.Time) (string, bool) {
	if user, known := k.current.User(key); known || k.previous == nil || !now.Before(k.until) {
		return user, known
	}
	return k.previous.User(key)
}

// fleetKeys are what is derived from the secret for containers.
type fleetKeys struct {
	containers *ContainerKeys
	replicas   *ReplicaKeys
}

// LiveContainerKeys are ContainerKeys and ReplicaKeys of one secret that may change.
type LiveContainerKeys struct{ *rotated[fleetKeys] }

// OpenContainerKeys waits for a secret and makes ContainerKeys and ReplicaKeys of it.
func OpenContainerKeys(ctx context.Context, cfg SecretConfig) (*LiveContainerKeys, error) {
	r, err := openRotated(ctx, cfg, func(v Versions) (keys fleetKeys, err error) {
		if keys.containers, err = NewContainerKeys(v.Current, v.previous()...); err != nil {
			return keys, err
		}
		keys.replicas, err = NewReplicaKeys(nil, v.Current, v.previous()...)
		return keys, err
	})
	if err != nil {
		return nil, err
	}
	return &LiveContainerKeys{r}, nil
}

// Token gives the token with which the container of that launch registers.
func (k *LiveContainerKeys) Token(launch string) string { return k.get().containers.Token(launch) }

// LinkSecret gives what proves a replica to one life of a container.
func (k *LiveContainerKeys) LinkSecret(container, bootID string) string {
	return k.get().containers.LinkSecret(container, bootID)
}

// PreviousLinkSecrets gives the secrets that a container may still hold which has registered
// before the secret was changed.
func (k *LiveContainerKeys) PreviousLinkSecrets(container, bootID string) []string {
	return k.get().containers.PreviousLinkSecrets(container, bootID)
}

// Verify tells whether token is that container's. One under an unknown key has the secret
// read again, within limits.
func (k *LiveContainerKeys) Verify(container, token string) error {
	seen := k.value.Load()
	err := seen.value.containers.Verify(container, token)
	if err == nil || seen.value.containers.knowsKeyOf(token) {
		return err
	}
	newest, changed := k.renew(seen)
	if !changed {
		return err
	}
	return newest.value.containers.Verify(container, token)
}

// Ticket lets a client of the session in at the replica.
func (k *LiveContainerKeys) Ticket(replica, session, user string) (string, error) {
	return k.get().replicas.Ticket(replica, session, user)
}

// Check tells for which user a ticket opens the session at the replica. One that is not good
// has the secret read again, within limits: the other replica may have a newer one.
func (k *LiveContainerKeys) Check(ticket, replica, session string) (user string, err error) {
	seen := k.value.Load()
	user, err = seen.value.replicas.Check(ticket, replica, session)
	if err == nil {
		return user, nil
	}
	newest, changed := k.renew(seen)
	if !changed {
		return "", err
	}
	return newest.value.replicas.Check(ticket, replica, session)
}

// SharedToken is one token for all containers that we did not launch. It proves that a
// container belongs to the fleet, not which one it is.
type SharedToken struct{ digest [sha256.Size]byte }

// NewSharedToken keeps the token's digest.
func NewSharedToken(token Secret) (*SharedToken, error) {
	if err := token.check("the shared token of containers"); err != nil {
		return nil, err
	}
	return &SharedToken{sha256.Sum256([]byte(token))}, nil
}

// Verify tells whether token is the one. The only error is state.ErrUnauthorized. A nil
// SharedToken knows none.
func (s *SharedToken) Verify(token Secret) error {
	if s == nil || len(token) > maxKey {
		return state.ErrUnauthorized
	}
	digest := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(digest[:], s.digest[:]) != 1 {
		return state.ErrUnauthorized
	}
	return nil
}
