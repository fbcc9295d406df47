package restconf

// libraryVersion is the revision of ietf-yang-library that is spoken (RFC 8525).
const libraryVersion = "2019-01-04"

// documents are the resources that are always the same: where the API stands
// (RFC 8040, section 3.1; RFC 6415), and what it has (section 3.3).
var documents = map[string]document{
	hostMeta: {"application/xrd+xml", `<?xml version="1.0" encoding="UTF-8"?>
<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">
  <Link rel="restconf" href="` + Root + `"/>
</XRD>
`},
	hostMetaJSON: {"application/json", `{"links":[{"rel":"restconf","href":"` + Root + `"}]}` + "\n"},
	Root: {yangData, `{"ietf-restconf:restconf":{"data":{},"operations":{},"yang-library-version":"` +
		libraryVersion + `"}}` + "\n"},
	Root + "/yang-library-version": {yangData, `{"ietf-restconf:yang-library-version":"` + libraryVersion + `"}` + "\n"},
	operations: {yangData, `{"ietf-restconf:operations":{"` + charra + `:tpm20-challenge-response-attestation":[null],"` +
		charra + `:log-retrieval":[null]}}` + "\n"},
}

// Nodes at the top of the data.
const (
	charraNode     = charra + ":rats-support-structures"
	libraryNode    = library + ":yang-library"
	modulesNode    = library + ":modules-state"
	monitoringNode = monitoring + ":restconf-state"
)

// state is the container restconf-state (RFC 8040, section 9.1).
type state struct {
	Capabilities struct {
		Capability []string `json:"capability"`
	} `json:"capabilities"`
}

var restconfState = func() (s state) {
	s.Capabilities.Capability = []string{"urn:ietf:params:restconf:capability:defaults:1.0?basic-mode=explicit"}
	return s
}()

// yangLibraryNode is the container yang-library (RFC 8525, section 4).
type yangLibraryNode struct {
	ModuleSets []moduleSet `json:"module-set"`
	Schemas    []schema    `json:"schema"`
	Datastores []datastore `json:"datastore"`
	ContentID  string      `json:"content-id"`
}

type moduleSet struct {
	Name       string   `json:"name"`
	Modules    []module `json:"module"`
	ImportOnly []module `json:"import-only-module"`
}

type module struct {
	Name      string   `json:"name"`
	Revision  string   `json:"revision"`
	Namespace string   `json:"namespace"`
	Features  []string `json:"feature,omitempty"`
}

type schema struct {
	Name       string   `json:"name"`
	ModuleSets []string `json:"module-set"`
}

type datastore struct {
	Name   string `json:"name"`
	Schema string `json:"schema"`
}

func moduleOf(name, revision string, features ...string) module {
	return module{name, revision, "urn:ietf:params:xml:ns:yang:" + name, features}
}

// yangLibrary says which modules are spoken and which of their features are
// on. Feature mtpm is off, since it is for at least two TPMs; so there is no
// list of compute nodes, and a challenge does not choose a certificate.
var yangLibrary = yangLibraryNode{
	ModuleSets: []moduleSet{{
		Name: "waxseal",
		Modules: []module{
			moduleOf(charra, "2024-12-05", "bios", "netequip_boot"),
			moduleOf(tcgAlgs, "2024-12-05", "tpm20"),
			moduleOf("ietf-restconf", "2017-01-26"),
			moduleOf(monitoring, "2017-01-26"),
			moduleOf(library, libraryVersion),
		},
		ImportOnly: []module{
			moduleOf("ietf-yang-types", "2013-07-15"),
			moduleOf("ietf-inet-types", "2013-07-15"),
			moduleOf("ietf-datastores", "2018-02-14"),
			moduleOf("ietf-hardware", "2018-03-13"),
			moduleOf("iana-hardware", "2018-03-13"),
			moduleOf("ietf-keystore", "2024-10-10"),
			moduleOf("ietf-crypto-types", "2024-10-10"),
			moduleOf("ietf-netconf-acm", "2018-02-14"),
		},
	}},
	Schemas:    []schema{{"waxseal", []string{"waxseal"}}},
	Datastores: []datastore{{"ietf-datastores:operational", "waxseal"}},
	ContentID:  "waxseal-restconf-1",
}

// modulesState says the same as yangLibrary to clients of RFC 7895; the module
// demands it.
type modulesState struct {
	ID      string      `json:"module-set-id"`
	Modules []oldModule `json:"module"`
}

type oldModule struct {
	Name        string   `json:"name"`
	Revision    string   `json:"revision"`
	Namespace   string   `json:"namespace"`
	Features    []string `json:"feature,omitempty"`
	Conformance string   `json:"conformance-type"`
}

var yangModules = func() modulesState {
	s := modulesState{ID: yangLibrary.ContentID}
	set := yangLibrary.ModuleSets[0]
	for _, m := range set.Modules {
		s.Modules = append(s.Modules, oldModule{m.Name, m.Revision, m.Namespace, m.Features, "implement"})
	}
	for _, m := range set.ImportOnly {
		s.Modules = append(s.Modules, oldModule{m.Name, m.Revision, m.Namespace, m.Features, "import"})
	}
	return s
}()
