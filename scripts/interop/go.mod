module waxseal/scripts/interop

go 1.26.0

tool (
	github.com/openconfig/attestz/service/attest/reference
	github.com/openconfig/attestz/service/emulator
)

require (
	github.com/openconfig/attestz v0.6.19
	google.golang.org/grpc v1.85.0
)

require (
	github.com/golang/glog v1.2.5 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
