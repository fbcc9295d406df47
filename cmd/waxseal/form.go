package main

import (
	"fmt"

	"waxseal/fleet/challenge"
	"waxseal/measure/wire"
)

// evidenceForm is the value of --format: how a router is to answer.
type evidenceForm struct{ wire.Format }

var evidenceForms = []struct {
	format       wire.Format
	name, suffix string
}{{wire.Raw, "raw", ""}, {wire.JWT, "eat-jwt", ".jwt"}, {wire.CWT, "eat-cwt", ".cwt"}}

// String implements pflag.Value.
func (f *evidenceForm) String() string {
	for _, e := range evidenceForms {
		if e.format == f.Format {
			return e.name
		}
	}
	return ""
}

// Type implements pflag.Value.
func (f *evidenceForm) Type() string { return "FORM" }

// Set implements pflag.Value.
func (f *evidenceForm) Set(s string) error {
	for _, e := range evidenceForms {
		if e.name == s {
			f.Format = e.format
			return nil
		}
	}
	return fmt.Errorf("%q is not one of raw, eat-jwt, eat-cwt", s)
}

// saveToken writes the token, if evidence came in one, beside the evidence.
func (a *app) saveToken(path string, r challenge.Result, form evidenceForm) error {
	if path == "" || len(r.Token) == 0 {
		return nil
	}
	for _, e := range evidenceForms {
		if e.format == form.Format {
			path += e.suffix
		}
	}
	if err := writeFile(path, r.Token); err != nil {
		return fmt.Errorf("--save: %w", err)
	}
	return nil
}
