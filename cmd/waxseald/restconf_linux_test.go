package main

import (
	"testing"
	"time"
)

func TestCommandLineSaysWhereRESTCONFIsServed(t *testing.T) {
	for line, want := range map[string]string{
		"":                                   ":8443",
		"console=ttyS0 quiet":                ":8443",
		"waxseal.restconf=:443\n":            ":443",
		"a waxseal.restconf=10.0.0.1:8443 b": "10.0.0.1:8443",
		"waxseal.restconf=off":               "",
		"waxseal.restconf=":                  "",
		"xwaxseal.restconf=off":              ":8443",
		"waxseal.restconf=:1 waxseal.restconf=off": "",
	} {
		if got := restconfOf(line); got != want {
			t.Errorf("%q: %q: want %q", line, got, want)
		}
	}
}

func TestUptimeGoesOn(t *testing.T) {
	first := uptime()
	time.Sleep(time.Millisecond)
	if next := uptime(); first <= 0 || next <= first {
		t.Errorf("%v, then %v", first, next)
	}
}
