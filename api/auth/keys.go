package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/wallcrawler/wallcrawler/state"
)

// maxKey bounds API keys, in bytes.
const maxKey = 512

// Key is one API key.
type Key struct {
	Key  Secret
	Name string // the user that it stands for; may be empty
}

// UserOf names the user that a key stands for: its name, else one made of its digest.
func UserOf(k Key) string {
	if k.Name != "" {
		return k.Name
	}
	sum := sha256.Sum256([]byte(k.Key))
	return "key_" + hex.EncodeToString(sum[:])[:12]
}

// ParseKeys reads keys written as "key" or "name:key", separated by commas. White space
// around them is dropped.
func ParseKeys(text string) ([]Key, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var keys []Key
	for i, part := range strings.Split(text, ",") {
		key := Key{Key: Secret(strings.TrimSpace(part))}
		if name, rest, named := strings.Cut(strings.TrimSpace(part), ":"); named {
			if name == "" {
				return nil, fmt.Errorf("API key %d has an empty name: write name:key, or the key alone", i+1)
			}
			key = Key{Key: Secret(rest), Name: name}
		}
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("API key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// ParseKeyList reads keys as a stored secret holds them: a JSON object {"API_KEYS": …} whose
// value is a list of texts, or a text that holds such a list as JSON; or the list alone. The
// texts are keys as they are, without names. Anything else is read by ParseKeys.
func ParseKeyList(text Secret) ([]Key, error) {
	raw := bytes.TrimSpace([]byte(text))
	if len(raw) == 0 {
		return nil, errors.New("the secret holds no API keys")
	}
	if raw[0] != '{' && raw[0] != '[' {
		return ParseKeys(string(raw))
	}
	wrong := errors.New(`the secret must be JSON like {"API_KEYS":["…","…"]}`)
	if raw[0] == '{' {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil || object["API_KEYS"] == nil {
			return nil, wrong
		}
		raw = object["API_KEYS"]
		var inner string
		if json.Unmarshal(raw, &inner) == nil {
			raw = []byte(inner)
		}
	}
	var list []*string
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, wrong
	}
	keys := make([]Key, 0, len(list))
	for i, entry := range list {
		if entry == nil {
			return nil, wrong
		}
		key := Key{Key: Secret(strings.TrimSpace(*entry))}
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("API key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (k Key) check() error {
	if k.Name != "" && !state.ValidID(k.Name) {
		return errors.New("its name may hold letters, digits, _ and - only, 128 at most")
	}
	if k.Key == "" || len(k.Key) > maxKey {
		return fmt.Errorf("it must have 1 to %d characters", maxKey)
	}
	for _, c := range []byte(k.Key) {
		if c <= ' ' || c > '~' || c == ',' {
			return errors.New("it may hold visible ASCII characters other than the comma only")
		}
	}
	return nil
}

// Keys knows the API keys, by their digests only.
type Keys struct {
	digests [][sha256.Size]byte
	users   []string
}

// NewKeys makes a set of keys. A key that occurs twice is an error; a name may occur often.
func NewKeys(keys ...Key) (*Keys, error) {
	set := &Keys{}
	seen := make(map[[sha256.Size]byte]bool, len(keys))
	for i, key := range keys {
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("API key %d: %w", i+1, err)
		}
		digest := sha256.Sum256([]byte(key.Key))
		if seen[digest] {
			return nil, fmt.Errorf("API key %d is given twice: a key stands for one user", i+1)
		}
		seen[digest] = true
		set.digests = append(set.digests, digest)
		set.users = append(set.users, UserOf(key))
	}
	return set, nil
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.digests) }

// User names the user of a key. The time it takes tells nothing about the keys known.
func (k *Keys) User(key Secret) (string, bool) {
	digest := sha256.Sum256([]byte(key))
	found := -1
	for i := range k.digests {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], k.digests[i][:]), i, found)
	}
	if found < 0 {
		return "", false
	}
	return k.users[found], true
}
