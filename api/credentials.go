package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/wallcrawler/wallcrawler/api/auth"
	"github.com/wallcrawler/wallcrawler/state"
)

// credentials is what a request came with, taken out of it before anything else sees it. Its
// fields are exported because fmt asks no methods of unexported ones: it would show the secrets.
type credentials struct {
	Bearer    []auth.Secret // Authorization: Bearer
	Query     []auth.Secret // ?token=
	Keys      []auth.Secret // X-BB-API-Key, x-api-key
	Container []auth.Secret // X-Container-Token
	Other     []auth.Secret // what was dropped unread: other schemes, unreadable queries
}

type credentialsKey struct{}

// takeCredentials is outermost: it moves every credential out of the URL and the headers
// into the request's context, so that neither logs, errors, metrics nor the relay can show
// one by accident.
func takeCredentials(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		creds := &credentials{}
		header := r.Header.Clone()
		for _, value := range take(header, "Authorization") {
			scheme, token, _ := strings.Cut(value, " ")
			if strings.EqualFold(scheme, "Bearer") {
				creds.Bearer = append(creds.Bearer, auth.Secret(strings.TrimSpace(token)))
				continue
			}
			creds.Other = append(creds.Other, auth.Secret(value), auth.Secret(token))
		}
		for _, name := range []string{"X-Bb-Api-Key", "X-Api-Key"} {
			for _, value := range take(header, name) {
				creds.Keys = append(creds.Keys, auth.Secret(strings.TrimSpace(value)))
			}
		}
		for _, value := range take(header, "X-Container-Token") {
			creds.Container = append(creds.Container, auth.Secret(strings.TrimSpace(value)))
		}
		// A Referer may carry the URL of a page opened with a token.
		header.Del("Referer")

		clean := *r.URL
		clean.User = nil
		clean.ForceQuery = false
		clean.RawQuery = creds.takeQuery(r.URL.RawQuery)
		r = r.WithContext(context.WithValue(r.Context(), credentialsKey{}, creds))
		r.URL = &clean
		r.Header = header
		r.RequestURI = clean.RequestURI()
		next.ServeHTTP(w, r)
	})
}

func take(header http.Header, name string) []string {
	values := header.Values(name)
	header.Del(name)
	return values
}

// takeQuery takes the tokens out of a query and returns the rest. Parts that cannot be read
// are dropped: one of them might be a token.
func (c *credentials) takeQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var rest []string
	for part := range strings.SplitSeq(raw, "&") {
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, errName := url.QueryUnescape(rawName)
		value, errValue := url.QueryUnescape(rawValue)
		switch {
		case errName == nil && strings.EqualFold(name, "token"):
			if errValue != nil {
				value = rawValue
			}
			c.Query = append(c.Query, auth.Secret(value))
		case errName != nil, errValue != nil, strings.Contains(part, ";"):
			c.Other = append(c.Other, auth.Secret(part))
		default:
			rest = append(rest, part)
		}
	}
	return strings.Join(rest, "&")
}

func credentialsOf(r *http.Request) *credentials {
	if creds, ok := r.Context().Value(credentialsKey{}).(*credentials); ok {
		return creds
	}
	return &credentials{}
}

// apiKey gives the one API key of the request.
func (c *credentials) apiKey() (auth.Secret, error) {
	all := slices.Concat(c.Keys, c.Bearer)
	if len(all) == 0 {
		return "", &state.Refusal{Err: state.ErrUnauthorized, Message: "there is no API key in the request",
			Hint: "send it as X-BB-API-Key, x-api-key or Authorization: Bearer"}
	}
	for _, key := range all[1:] {
		if key != all[0] {
			return "", &state.Refusal{Err: state.ErrInvalid, Message: "the request holds several API keys", Hint: "send one"}
		}
	}
	return all[0], nil
}

// sessionToken gives the one session token of the request.
func (c *credentials) sessionToken() (auth.Secret, error) {
	all := slices.Concat(c.Bearer, c.Query)
	switch {
	case len(all) > 1:
		return "", &state.Refusal{Err: state.ErrInvalid, Message: "the request holds several session tokens",
			Hint: "send one, either as Authorization: Bearer or as the query parameter token"}
	case len(all) == 0 || all[0] == "":
		return "", &state.Refusal{Err: state.ErrUnauthorized, Message: "there is no session token in the request",
			Hint: "use the session's connectUrl as it is; it holds the token"}
	}
	return all[0], nil
}

// minScrub is the length, in bytes, from which a credential is looked for in texts: shorter
// ones would hit ordinary words.
const minScrub = 4

// scrub takes the request's credentials out of a text that others made, the last resort
// against one that found its way there.
func (c *credentials) scrub(text string) string {
	for _, list := range [][]auth.Secret{c.Bearer, c.Query, c.Keys, c.Container, c.Other} {
		for _, secret := range list {
			if len(secret) >= minScrub {
				text = strings.ReplaceAll(text, secret.Reveal(), "[redacted]")
			}
		}
	}
	return text
}
