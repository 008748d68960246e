package proxy

import (
	"errors"
	"net/http"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// secrets gives what a life of a container may take for the proof of a replica: the secret of
// today, and those that it may have got before the keys were changed. Agents learn the new
// one when they register the next time.
func secrets(c *state.Container, now func(container, bootID string) string, before func(container, bootID string) []string) []string {
	all := []string{now(c.ID, c.BootID)}
	if before != nil {
		all = append(all, before(c.ID, c.BootID)...)
	}
	return all
}

// withSecrets tries a request to a container with each of them until one is not refused.
func (r *Relay) withSecrets(s *state.Session, c *state.Container, try func(http.Header) error) error {
	var err error
	for _, secret := range secrets(c, r.cfg.Secret, r.cfg.PreviousSecrets) {
		err = try(credentials(s, secret))
		var refused *tunnel.HandshakeError
		if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return err
		}
	}
	return err
}
