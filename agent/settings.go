package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const (
	maxSide = 16384
	maxText = 1024
)

func (v Viewport) valid() bool {
	return v.Width >= 1 && v.Height >= 1 && v.Width <= maxSide && v.Height <= maxSide
}

// settings is what a session asks of its browser.
type settings struct {
	viewport Viewport
	timezone string   // an IANA name; empty: the container's
	flags    []string // beyond every browser's
	cold     bool     // no warm browser will do
}

// Setting is one field of browserSettings that a container understands.
type Setting struct {
	Name  string
	About string
	apply func(*settings, json.RawMessage) error
}

// SupportedSettings lists what a session may ask of its browser; any other field is refused
// by name. Whatever differs from the container's default needs a browser started for the
// session. null is the default everywhere.
func SupportedSettings() []Setting {
	return []Setting{
		{"viewport", "{width, height}: the window's size in CSS pixels", applyViewport},
		{"userAgent", "the User-Agent of every request", applyUserAgent},
		{"locale", "the language, e.g. de-CH", applyLocale},
		{"timezone", "the time zone, e.g. Europe/Zurich", applyTimezone},
		{"timezoneId", "the same as timezone", applyTimezone},
		{"proxy", "{server, bypass}: a proxy without a password, e.g. http://10.0.0.9:3128", applyProxy},
		{"proxies", "false, or a list of one {type: external, server}", applyProxies},
		{"ignoreCertificateErrors", "true: accept any certificate", applyIgnoreCertificates},

		{"blockAds", "false only", only("false")},
		{"solveCaptchas", "no effect: nothing here solves captchas", anyBool},
		{"logSession", "no effect: nothing is logged", anyBool},
		{"recordSession", "no effect: nothing is recorded", anyBool},
		{"advancedStealth", "false only", only("false")},
		{"verified", "false only", only("false")},
		{"os", "linux only", only(`"linux"`)},
		{"captchaImageSelector", "empty only", only(`""`)},
		{"captchaInputSelector", "empty only", only(`""`)},
		{"fingerprint", "an empty object only", only("{}")},
		{"allowedDomains", "an empty list only", only("[]")},
		{"extraHTTPHeaders", "an empty object only: set headers through the protocol", only("{}")},
		{"storageState", "an empty object only: set it through the protocol", only("{}")},
		{"permissions", "an empty list only: grant them through the protocol", only("[]")},
	}
}

// parseSettings reads the document's browserSettings. An error names the field.
func parseSettings(options json.RawMessage, viewport Viewport) (settings, error) {
	s := settings{viewport: viewport}
	if len(options) == 0 || isNull(options) {
		return s, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(options, &fields); err != nil {
		return s, errors.New("browserSettings is not a JSON object")
	}
	supported := SupportedSettings()
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names) // the same flags and the same error every time
	for _, name := range names {
		if isNull(fields[name]) {
			continue
		}
		i := slices.IndexFunc(supported, func(s Setting) bool { return s.Name == name })
		if i < 0 {
			return s, fmt.Errorf("browserSettings.%s is not supported", excerpt([]byte(name)))
		}
		if err := supported[i].apply(&s, fields[name]); err != nil {
			return s, fmt.Errorf("browserSettings.%s: %w", name, err)
		}
	}
	if s.viewport != viewport {
		s.cold = true
	}
	return s, nil
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

func (s *settings) flag(name, value string) {
	s.flags = append(s.flags, "--"+name+"="+value)
	s.cold = true
}

// only accepts the one value that is the default anyway.
func only(value string) func(*settings, json.RawMessage) error {
	return func(_ *settings, raw json.RawMessage) error {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil || b.String() != value {
			return fmt.Errorf("only %s is supported", value)
		}
		return nil
	}
}

func anyBool(_ *settings, raw json.RawMessage) error {
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		return errors.New("must be true or false")
	}
	return nil
}

func applyViewport(s *settings, raw json.RawMessage) error {
	var v Viewport
	if json.Unmarshal(raw, &v) != nil || !v.valid() {
		return fmt.Errorf("must be {width, height}, both 1 to %d", maxSide)
	}
	s.viewport = v
	return nil
}

// text reads a string that can be part of a command line and of a header.
func text(raw json.RawMessage) (string, error) {
	var v string
	if json.Unmarshal(raw, &v) != nil || len(v) > maxText ||
		strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", fmt.Errorf("must be a string of at most %d printable characters", maxText)
	}
	return v, nil
}

func applyUserAgent(s *settings, raw json.RawMessage) error {
	v, err := text(raw)
	if err == nil && v != "" {
		s.flag("user-agent", v)
	}
	return err
}

func applyLocale(s *settings, raw json.RawMessage) error {
	v, err := text(raw)
	if err != nil || v == "" {
		return err
	}
	v = strings.ReplaceAll(v, "_", "-")
	if !regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$`).MatchString(v) {
		return errors.New("must be a language tag like de or de-CH")
	}
	s.flag("lang", v)
	accept := v
	if base, _, ok := strings.Cut(v, "-"); ok {
		accept += "," + base
	}
	s.flag("accept-lang", accept)
	return nil
}

func applyTimezone(s *settings, raw json.RawMessage) error {
	v, err := text(raw)
	if err != nil || v == "" {
		return err
	}
	if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`).MatchString(v) {
		return errors.New("must be a time zone's name like Europe/Zurich")
	}
	if s.timezone != "" && s.timezone != v {
		return errors.New("contradicts the other name of the same field")
	}
	s.timezone, s.cold = v, true
	return nil
}

func applyProxy(s *settings, raw json.RawMessage) error {
	var p struct {
		Server   string `json:"server"`
		Bypass   string `json:"bypass"`
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if json.Unmarshal(raw, &p) != nil {
		return errors.New("must be {server, bypass}")
	}
	if p.Username != "" || p.Password != "" {
		return errors.New("username and password are not supported")
	}
	return s.setProxy(p.Server, p.Bypass)
}

func (s *settings) setProxy(server, bypass string) error {
	full := server
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || len(server) > maxText ||
		!slices.Contains([]string{"http", "https", "socks4", "socks5"}, u.Scheme) {
		return errors.New("server must be like http://10.0.0.9:3128 or socks5://10.0.0.9:1080")
	}
	if u.User != nil {
		return errors.New("a user in server is not supported")
	}
	if slices.ContainsFunc(s.flags, func(f string) bool { return strings.HasPrefix(f, "--proxy-server=") }) {
		return errors.New("there is another proxy already")
	}
	s.flag("proxy-server", u.Scheme+"://"+u.Host)
	if bypass != "" {
		if len(bypass) > maxText || strings.ContainsFunc(bypass, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return errors.New("bypass must be a list of hosts")
		}
		s.flag("proxy-bypass-list", strings.ReplaceAll(bypass, ",", ";"))
	}
	return nil
}

func applyProxies(s *settings, raw json.RawMessage) error {
	var own bool
	if json.Unmarshal(raw, &own) == nil {
		if own {
			return errors.New("true is not supported: there are no proxies of the service's own")
		}
		return nil
	}
	var list []struct {
		Type          string `json:"type"`
		Server        string `json:"server"`
		DomainPattern string `json:"domainPattern"`
		Username      string `json:"username"`
		Password      string `json:"password"`
	}
	if json.Unmarshal(raw, &list) != nil || len(list) > 1 {
		return errors.New("must be false or a list of at most one proxy")
	}
	if len(list) == 0 || list[0].Type == "none" {
		return nil
	}
	p := list[0]
	switch {
	case p.Type != "external":
		return errors.New("only the type external is supported")
	case p.Username != "" || p.Password != "":
		return errors.New("username and password are not supported")
	case p.DomainPattern != "":
		return errors.New("domainPattern is not supported")
	}
	return s.setProxy(p.Server, "")
}

func applyIgnoreCertificates(s *settings, raw json.RawMessage) error {
	var yes bool
	if json.Unmarshal(raw, &yes) != nil {
		return errors.New("must be true or false")
	}
	if yes {
		s.flags = append(s.flags, "--ignore-certificate-errors")
		s.cold = true
	}
	return nil
}
