// Calls servers by gRPC's weighted_round_robin until standard input ends. The arguments are the addresses of the servers.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"time"

	doherty "doherty/v1"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"
)

const callers = 6

const config = `{"loadBalancingConfig": [{"weighted_round_robin": {
	"enableOobLoadReport": true, "oobReportingPeriod": "1s", "blackoutPeriod": "1s", "weightUpdatePeriod": "0.5s"}}]}`

func call(client doherty.GenerationServiceClient) {
	stopping := &doherty.Stopping{MaxOutputTokens: proto.Uint32(20), IgnoreEos: true}
	request := &doherty.GenerateRequest{Prompt: proto.String("Hi"), Stopping: stopping}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := client.Generate(ctx, request)
		cancel()
		if err != nil {
			log.Fatal(err)
		}
	}
}

func main() {
	servers := manual.NewBuilderWithScheme("servers")
	var addresses []resolver.Address
	for _, address := range os.Args[1:] {
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	servers.InitialState(resolver.State{Addresses: addresses})
	connection, err := grpc.NewClient(
		"servers:///",
		grpc.WithResolvers(servers),
		grpc.WithDefaultServiceConfig(config),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		log.Fatal(err)
	}
	client := doherty.NewGenerationServiceClient(connection)
	for range callers {
		go call(client)
	}
	io.Copy(io.Discard, os.Stdin)
}
