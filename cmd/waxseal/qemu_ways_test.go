package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"waxseal/images/vm"
)

// asked holds that the router gives the same answer in every form and over
// every protocol in which it can be asked.
func (l site) asked(t *testing.T, v *vm.VM, restconf int) {
	t.Helper()
	for _, way := range [][]string{{"--batched"}, {"--format", "eat-jwt"}, {"--format", "eat-cwt"}} {
		if got := l.attest(t, v, exitOK, way...); got.Result != "affirming" {
			t.Errorf("%s: verdict is %s (%v), want affirming", strings.Join(way, " "), got.Result, got.Reasons)
		}
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	const rats = "ietf-tpm-remote-attestation:"
	body := fmt.Sprintf(`{"%sinput":{"tpm20-attestation-challenge":{"nonce-value":%q,"tpm20-pcr-selection":[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384","pcr-index":[12,13,14]}]}}}`,
		rats, base64.StdEncoding.EncodeToString(nonce))
	out, err := exec.CommandContext(t.Context(), "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60",
		"--cacert", l.path("owner/owner-ca.pem"), "--cert", l.path("owner/client.pem"), "--key", l.path("owner/client.key"),
		"--header", "Content-Type: application/yang-data+json", "--data", body,
		fmt.Sprintf("https://127.0.0.1:%d/restconf/operations/%stpm20-challenge-response-attestation", restconf, rats)).CombinedOutput()
	if err != nil {
		t.Fatalf("challenge over RESTCONF: %v: %s", err, out)
	}
	var answer struct {
		Output struct {
			Responses []struct {
				Quote []byte `json:"quote-data"`
			} `json:"tpm20-attestation-response"`
		} `json:"ietf-tpm-remote-attestation:output"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r := answer.Output.Responses; len(r) != 1 || !bytes.Contains(r[0].Quote, nonce) {
		t.Errorf("RESTCONF answers with another quote than was asked for: %s", out)
	}
}

// freePort returns a port on 127.0.0.1 at which nobody listened a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
