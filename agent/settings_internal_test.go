package agent

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettingsBecomeFlags(t *testing.T) {
	viewport := Viewport{Width: 1288, Height: 711}
	for _, tc := range []struct {
		name, options string
		flags         string // joined by spaces
		cold          bool
		err           string
	}{
		{"nothing needs nothing", ``, "", false, ""},
		{"null is nothing", `null`, "", false, ""},
		{"the default viewport is warm", `{"viewport":{"width":1288,"height":711}}`, "", false, ""},
		{"another is not", `{"viewport":{"width":800,"height":600}}`, "", true, ""},
		{"fields without effect stay warm", `{"blockAds":false,"logSession":true,"recordSession":false,"solveCaptchas":true,"os":"linux","allowedDomains":[ ],"userAgent":null}`, "", false, ""},
		{"a user agent", `{"userAgent":"A b/1"}`, "--user-agent=A b/1", true, ""},
		{"a locale", `{"locale":"de_CH"}`, "--lang=de-CH --accept-lang=de-CH,de", true, ""},
		{"a proxy", `{"proxy":{"server":"10.0.0.9:3128","bypass":"a,b"}}`, "--proxy-server=http://10.0.0.9:3128 --proxy-bypass-list=a;b", true, ""},
		{"a proxy of the list", `{"proxies":[{"type":"external","server":"socks5://h:1"}]}`, "--proxy-server=socks5://h:1", true, ""},
		{"no proxies", `{"proxies":false}`, "", false, ""},
		{"any certificate", `{"ignoreCertificateErrors":true}`, "--ignore-certificate-errors", true, ""},

		{"not an object", `[1]`, "", false, "browserSettings is not a JSON object"},
		{"an unknown field is named", `{"context":{"id":"c"}}`, "", false, "browserSettings.context is not supported"},
		{"a wrong type is named", `{"userAgent":1}`, "", false, "browserSettings.userAgent: "},
		{"no second line of a header", `{"userAgent":"a\r\nX-Evil: 1"}`, "", false, "browserSettings.userAgent: "},
		{"no flag by way of a locale", `{"locale":"de --no-sandbox"}`, "", false, "browserSettings.locale: "},
		{"no path by way of a time zone", `{"timezone":"../../etc/passwd"}`, "", false, "browserSettings.timezone: "},
		{"two time zones", `{"timezone":"Asia/Tokyo","timezoneId":"Asia/Seoul"}`, "", false, "browserSettings.timezoneId: "},
		{"a side of zero", `{"viewport":{"width":0,"height":600}}`, "", false, "browserSettings.viewport: "},
		{"a password", `{"proxy":{"server":"http://h:1","password":"p"}}`, "", false, "browserSettings.proxy: "},
		{"a password in the server", `{"proxy":{"server":"http://u:p@h:1"}}`, "", false, "browserSettings.proxy: "},
		{"a proxy of another kind", `{"proxy":{"server":"file:///etc/passwd"}}`, "", false, "browserSettings.proxy: "},
		{"ads to be blocked", `{"blockAds":true}`, "", false, "browserSettings.blockAds: only false is supported"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseSettings(json.RawMessage(tc.options), viewport)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if flags := strings.Join(got.flags, " "); flags != tc.flags || got.cold != tc.cold {
				t.Errorf("flags %q, cold %t", flags, got.cold)
			}
		})
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(`{"viewport":{"width":1,"height":2},"proxy":{"server":"x:1","bypass":"y"},"locale":"de","userAgent":"u","timezone":"UTC"}`)
	f.Add(`{"proxies":[{"type":"external","server":"http://[::1]:1"}]}`)
	f.Fuzz(func(t *testing.T, options string) {
		got, err := parseSettings(json.RawMessage(options), Viewport{Width: 1, Height: 1})
		if err != nil {
			return
		}
		if len(got.flags) > 0 && !got.cold {
			t.Error("flags for a warm browser")
		}
		for _, flag := range got.flags {
			if !strings.HasPrefix(flag, "--") || strings.ContainsAny(flag, "\x00\r\n") {
				t.Errorf("flag %q", flag)
			}
		}
		if strings.ContainsAny(got.timezone, "\x00\n=.") {
			t.Errorf("time zone %q", got.timezone)
		}
	})
}

func TestRegisterURL(t *testing.T) {
	got := map[string]string{}
	for _, origin := range []string{"http://h:1", "http://h:1/", "h:1", "https://h/base/", "http://h/internal/register", "http://u:p@h", "ftp://h", "http://", "://"} {
		u, err := registerURL(origin)
		if err != nil {
			u = "refused"
		}
		got[origin] = u
	}
	want := map[string]string{
		"http://h:1": "http://h:1/internal/register", "http://h:1/": "http://h:1/internal/register",
		"h:1": "http://h:1/internal/register", "https://h/base/": "https://h/base/internal/register",
		"http://h/internal/register": "http://h/internal/register",
		"http://u:p@h":               "refused", "ftp://h": "refused", "http://": "refused", "://": "refused",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
