package agent_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"strings"
	"testing"

	"waxseal/agent"
)

// The examples of docs/restconf.md are one script, and it runs.
func TestExamplesOfTheManualRun(t *testing.T) {
	manual, err := os.ReadFile("../docs/restconf.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\n"
	for i, part := range strings.Split(string(manual), "```") {
		if text, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script += text
		}
	}
	for _, tool := range []string{"curl", "tpm2_checkquote"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: run scripts/setup", tool)
		}
	}
	chip := newSoftChip(t)
	firmware := firmwareLog(t, chip)
	l := newLab(t, chip, func(c *agent.Config) { c.Firmware = firmware })
	l.enroll(t)
	c := l.newCurl(t, map[string]*tls.Certificate{"client": l.owner.client(t)})
	der, err := x509.MarshalPKIXPublicKey(&chip.iak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c.keep(t, "iak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), "ROUTER="+l.web)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`href="/restconf"`, `"hardware-based":true`, `:status":"operational"`, `"event-number":"3"`, `"event-number":"6"`, `"event-number":5,`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the examples do not show %s: %s", want, out)
		}
	}
}
