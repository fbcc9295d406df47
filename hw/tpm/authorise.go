package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// withPolicy runs f with a policy session by which k may be used for command,
// and flushes the session whatever f returns. For IAK and IDevID command is
// TPM2_Certify or TPM2_ActivateCredential, which need the ADMIN role (Part 1,
// section 19.2); the EK's policy names no command.
func (d *Device) withPolicy(t transport.TPM, k Key, command tpm2.TPMCC, f func(tpm2.Session) error) (err error) {
	alg := measure.SHA384
	if k == EK {
		alg = measure.SHA256 // nameAlg of template L-1
	}
	session, flush, err := tpm2.PolicySession(t, tpm2.TPMIAlgHash(alg), sessionNonce)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush()) }()
	if err := satisfy(t, session.Handle(), k, alg, command); err != nil {
		return fmt.Errorf("policy of %s: %w", k, err)
	}
	return f(session)
}

// satisfy puts a session into the state that the authPolicy of k asks for.
func satisfy(t transport.TPM, session tpm2.TPMHandle, k Key, alg measure.Alg, command tpm2.TPMCC) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session,
	}.Execute(t)
	if err != nil || k == EK {
		return err
	}
	branches, err := policyBranches(k, alg)
	if err != nil {
		return err
	}
	if _, err := (tpm2.PolicyCommandCode{PolicySession: session, Code: command}).Execute(t); err != nil {
		return err
	}
	or := tpm2.PolicyOr{PolicySession: session}
	for _, b := range branches {
		or.PHashList.Digests = append(or.PHashList.Digests, tpm2.TPM2BDigest{Buffer: b})
	}
	_, err = or.Execute(t)
	return err
}
