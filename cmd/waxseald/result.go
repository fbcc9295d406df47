package main

import (
	"fmt"
	"os"

	"github.com/go-json-experiment/json"
)

// result is what process 1 tells the resident agent about the boot. It is no
// evidence: it only explains why there is none.
type result struct {
	Board      string `json:"board"`
	Serial     string `json:"serial"`
	Unattested string `json:"unattested"` // why nothing can be attested, for example "no TPM"; empty: it can
}

func (r result) save() error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(resultFile, b, 0o600)
}

func loadResult() (result, error) {
	var r result
	b, err := os.ReadFile(resultFile)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r, json.RejectUnknownMembers(true)); err != nil {
		return r, fmt.Errorf("%s: %w", resultFile, err)
	}
	return r, nil
}
