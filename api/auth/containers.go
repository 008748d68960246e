package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/wallcrawler/wallcrawler/state"
)

// Labels keep the two uses of a container key apart; the zero byte ends them.
const (
	containerTokenLabel  = "container-token\x00"
	containerSecretLabel = "link-secret\x00"
	containerTokenPrefix = "wct1"
)

// maxContainerToken is well above the length of any token that we make, in bytes.
const maxContainerToken = 256

// ContainerKeys makes and checks the credentials of containers. They are derived, not drawn:
// a retried launch is the same call, and every replica can check them without a store.
type ContainerKeys struct {
	keys []containerKey // the current one first
}

type containerKey struct {
	id  string
	mac []byte
}

// NewContainerKeys derives the keys. New credentials are made with the current secret;
// tokens made with a previous one are still good.
func NewContainerKeys(current Secret, previous ...Secret) (*ContainerKeys, error) {
	keys := make([]containerKey, 0, 1+len(previous))
	for _, secret := range append([]Secret{current}, previous...) {
		if err := secret.check("the secret for containers"); err != nil {
			return nil, err
		}
		id, err := secret.derive("container-key-id")
		if err != nil {
			return nil, err
		}
		mac, err := secret.derive("container-key")
		if err != nil {
			return nil, err
		}
		keys = append(keys, containerKey{id: hex.EncodeToString(id[:4]), mac: mac})
	}
	return &ContainerKeys{keys: keys}, nil
}

// KeyID names the key that new tokens are made with. It is no secret.
func (k *ContainerKeys) KeyID() string { return k.keys[0].id }

// Token gives the token with which the container of that launch registers.
func (k *ContainerKeys) Token(launch string) string {
	key := k.keys[0]
	return containerTokenPrefix + "." + key.id + "." + key.sum(containerTokenLabel, launch)
}

// Verify tells whether token is that container's. The only error is state.ErrUnauthorized.
func (k *ContainerKeys) Verify(container, token string) error {
	if len(token) > maxContainerToken || strings.Count(token, ".") != 2 {
		return state.ErrUnauthorized
	}
	parts := strings.Split(token, ".")
	if parts[0] != containerTokenPrefix {
		return state.ErrUnauthorized
	}
	for _, key := range k.keys {
		if key.id != parts[1] {
			continue
		}
		if hmac.Equal([]byte(key.sum(containerTokenLabel, container)), []byte(parts[2])) {
			return nil
		}
	}
	return state.ErrUnauthorized
}

// knowsKeyOf tells whether the key that a token names is known, or the token names none.
func (k *ContainerKeys) knowsKeyOf(token string) bool {
	parts := strings.SplitN(token, ".", 3)
	if len(token) > maxContainerToken || len(parts) != 3 || parts[0] != containerTokenPrefix {
		return true
	}
	for _, key := range k.keys {
		if key.id == parts[1] {
			return true
		}
	}
	return false
}

// LinkSecret gives what proves a replica to one life of a container: the container learns it
// when it registers, every replica can make it again.
func (k *ContainerKeys) LinkSecret(container, bootID string) string {
	return k.keys[0].sum(containerSecretLabel, container+"\x00"+bootID)
}

func (k *containerKey) sum(label, text string) string {
	mac := hmac.New(sha256.New, k.mac)
	mac.Write([]byte(label))
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
