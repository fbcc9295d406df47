package swtpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// manufactureTimeout bounds swtpm_setup, which takes about a second.
const manufactureTimeout = time.Minute

// Making says how a TPM is made.
type Making struct {
	State string // directory for the TPM's state; made if missing
	Banks string // active PCR banks, "sha256,sha384" if empty
	CA    string // directory of the CA that certifies the EK; made if missing; "" for no certificates
	Name  string // the subject of the EK certificate, for example the router's serial number; needed with CA
}

// Manufacture makes the TPM: seeds, EK (persistent at 0x81010001) and, with a
// CA, the certificates of EK and platform in NV. What the directory held of
// an older TPM is gone afterwards.
func Manufacture(ctx context.Context, m Making) error {
	if err := Check(); err != nil {
		return err
	}
	args, err := m.arguments()
	if err != nil {
		return fmt.Errorf("make TPM in %s: %w", m.State, err)
	}
	ctx, cancel := context.WithTimeout(ctx, manufactureTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "swtpm_setup", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("make TPM in %s: swtpm_setup: %w: %s", m.State, err, lastLines(out))
	}
	return nil
}

// Made tells whether the directory holds the state of a TPM.
func Made(state string) bool {
	_, err := os.Stat(filepath.Join(state, "tpm2-00.permall"))
	return err == nil
}

func (m Making) arguments() ([]string, error) {
	if err := os.MkdirAll(m.State, 0o700); err != nil {
		return nil, err
	}
	banks := m.Banks
	if banks == "" {
		banks = "sha256,sha384"
	}
	args := []string{"--tpm2", "--tpmstate", "dir://" + m.State, "--pcr-banks", banks, "--overwrite"}
	if m.CA == "" {
		return append(args, "--createek"), nil
	}
	config, err := m.writeCA()
	if err != nil {
		return nil, err
	}
	return append(args, "--config", config, "--create-ek-cert", "--create-platform-cert",
		"--lock-nvram", "--vmid", m.Name), nil
}

// writeCA writes the configuration of a local CA of one's own and returns
// the path for swtpm_setup. swtpm_localca makes the CA's keys at first use.
func (m Making) writeCA() (string, error) {
	if m.Name == "" {
		return "", errors.New("an EK certificate needs a name")
	}
	dir, err := filepath.Abs(m.CA)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return "", err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	files := map[string]string{
		"setup.conf": "create_certs_tool = " + tool + "\ncreate_certs_tool_config = " + in("localca.conf") +
			"\ncreate_certs_tool_options = " + in("localca.options") + "\n",
		"localca.conf": "statedir = " + dir + "\nsigningkey = " + in("signkey.pem") +
			"\nissuercert = " + in(IssuerFile) + "\ncertserial = " + in("certserial") + "\n",
		"localca.options": "--platform-manufacturer waxseal\n--platform-version 1\n--platform-model lab\n",
	}
	for name, text := range files {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return in("setup.conf"), nil
}

// Files of the CA in PEM: the issuer of EK certificates, and its root.
const (
	IssuerFile = "issuercert.pem"
	RootFile   = "swtpm-localca-rootca-cert.pem"
)

func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}
