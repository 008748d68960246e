package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxVerified is how many tokens are remembered.
const maxVerified = 4096

// verified remembers good tokens, so that a client which asks for the browser's address, then
// connects, and comes back, is not worked out each time. A token is found under its digest, to
// the last bit as it was spelt, while its keys are those that it was verified under and until
// it expires: nothing else in a token gets worse with time.
type verified struct {
	now func() time.Time

	mu     sync.Mutex // guards the following
	keys   any        // what all of them were verified under
	tokens map[[sha256.Size]byte]Claims
}

// find gives the claims of a token that was good under these keys.
func (v *verified) find(keys any, digest [sha256.Size]byte) (Claims, bool) {
	v.mu.Lock()
	c, ok := v.tokens[digest]
	ok = ok && v.keys == keys
	v.mu.Unlock()
	return c, ok && v.now().Before(c.Expires.Add(tokenLeeway))
}

// add remembers a token. Those under other keys are forgotten; and some one when there are
// too many.
func (v *verified) add(keys any, digest [sha256.Size]byte, c Claims) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys != keys || v.tokens == nil {
		v.keys, v.tokens = keys, map[[sha256.Size]byte]Claims{}
	}
	if len(v.tokens) >= maxVerified {
		for any := range v.tokens {
			delete(v.tokens, any)
			break
		}
	}
	v.tokens[digest] = c
}
