SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.events (
    place bigint NOT NULL,
    hash bytea,
    at bigint NOT NULL,
    kind text NOT NULL,
    session uuid,
    provider text,
    address text,
    operator text,
    key uuid,
    CONSTRAINT events_hash_check CHECK ((length(hash) = 32))
);
CREATE TABLE public.keys (
    id uuid NOT NULL,
    hash bytea NOT NULL,
    name text,
    role text,
    provider text,
    created_at bigint NOT NULL,
    revoked_at bigint,
    CONSTRAINT keys_check CHECK (((name IS NOT NULL) = (provider IS NULL))),
    CONSTRAINT keys_check1 CHECK (((role IS NOT NULL) = (provider IS NULL))),
    CONSTRAINT keys_hash_check CHECK ((length(hash) = 32))
);
CREATE TABLE public.ledgers (
    session uuid NOT NULL,
    version bigint NOT NULL,
    latest bigint NOT NULL,
    open jsonb NOT NULL,
    settled jsonb NOT NULL,
    total jsonb NOT NULL,
    expires bigint,
    closed jsonb NOT NULL
)
WITH (fillfactor='60');
CREATE TABLE public.presence (
    session uuid NOT NULL,
    provider_seen_at bigint,
    renter_seen_at bigint
)
WITH (fillfactor='60');
CREATE TABLE public.probe (
    one boolean NOT NULL,
    at bigint NOT NULL,
    CONSTRAINT probe_one_check CHECK (one)
);
CREATE TABLE public.schema_version (
    version bigint NOT NULL
);
CREATE TABLE public.sessions (
    id uuid NOT NULL,
    version bigint NOT NULL,
    status text NOT NULL,
    tokens bytea[] NOT NULL,
    cap_bytes bigint NOT NULL,
    removed_at bigint,
    sealed_credential bytea NOT NULL,
    document jsonb NOT NULL,
    CONSTRAINT sessions_check CHECK (((status = ANY (ARRAY['READY'::text, 'LOCKED'::text])) OR (tokens = '{}'::bytea[]))),
    CONSTRAINT sessions_check1 CHECK (((removed_at IS NOT NULL) = (status = 'REMOVED'::text))),
    CONSTRAINT sessions_status_check CHECK ((status = ANY (ARRAY['READY'::text, 'LOCKED'::text, 'RECYCLING'::text, 'REMOVED'::text])))
);
CREATE TABLE public.trail_marks (
    name text NOT NULL,
    place bigint NOT NULL,
    hash bytea NOT NULL,
    seal bytea NOT NULL,
    CONSTRAINT trail_marks_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT trail_marks_name_check CHECK ((name = ANY (ARRAY['base'::text, 'head'::text]))),
    CONSTRAINT trail_marks_seal_check CHECK ((length(seal) = 32))
);
CREATE TABLE public.turns (
    what text NOT NULL,
    node uuid NOT NULL,
    until timestamp with time zone NOT NULL
);
CREATE TABLE public.usage_records (
    lock uuid NOT NULL,
    session uuid NOT NULL,
    provider text NOT NULL,
    pricing text,
    started_at bigint NOT NULL,
    ended_at bigint,
    bytes_in bigint DEFAULT 0 NOT NULL,
    bytes_out bigint DEFAULT 0 NOT NULL,
    forfeited bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.webhook_cursors (
    target text NOT NULL,
    place bigint NOT NULL
);
INSERT INTO public.events VALUES (1, '\xcd4e055a2af82262f465ff219f3c4dea4b5b346500d2e4eb62af0a50f767741d', 1795334400007, 'SESSION_LOCKED', '00000000-0000-0000-0000-000000000007', NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (2, '\x3b9d4bbcb1070a2c9aa2f44127a933998dfeb7f03140ff1d7cbe44dcb691f6b7', 1795334400008, 'SESSION_LOCKED', '00000000-0000-0000-0000-000000000008', NULL, NULL, NULL, NULL);
INSERT INTO public.keys VALUES ('00000000-0000-0000-0000-000000000001', '\x227ba5f2c6c9109fe5c44a0696f393379607493a377f522ee27d9a7ae3227d89', 'night shift', 'read', NULL, 1795334400001, NULL);
INSERT INTO public.ledgers VALUES ('00000000-0000-0000-0000-000000000004', 1, 1795334400003, '[{"id": "00000000-0000-0000-0000-000000000004", "in": 0, "out": 0, "lock": "15b0bf8c-af7b-8d7b-aefa-c17e0a82284b", "node": "00000000-0000-0000-0000-000000000009", "granted": 5000, "sequence": 0, "expires_at": 1795334460003}]', '[{"in": 0, "out": 0, "node": "00000000-0000-0000-0000-000000000009", "since": "00000000-0000-0000-0000-000000000004"}]', '[0, 0, 0]', 1795334460003, '[]');
INSERT INTO public.ledgers VALUES ('00000000-0000-0000-0000-000000000002', 3, 1795334400004, '[{"id": "00000000-0000-0000-0000-000000000005", "in": 0, "out": 0, "lock": "865a6a51-edf4-8b09-ba33-4f95400d4688", "node": "00000000-0000-0000-0000-000000000009", "granted": 7000, "sequence": 0, "expires_at": 1795334460003}]', '[{"in": 111, "out": 222, "node": "00000000-0000-0000-0000-000000000009", "since": "00000000-0000-0000-0000-000000000002"}]', '[111, 222, 0]', 1795334460003, '[[5984448, 111, 222, 0]]');
INSERT INTO public.ledgers VALUES ('00000000-0000-0000-0000-000000000003', 2, 1795334400004, '[]', '[]', '[1, 2, 0]', NULL, '[[5984448, 1, 2, 0]]');
INSERT INTO public.presence VALUES ('00000000-0000-0000-0000-000000000001', 1795334400000, NULL);
INSERT INTO public.presence VALUES ('00000000-0000-0000-0000-000000000002', 1795334400000, 1795334400002);
INSERT INTO public.presence VALUES ('00000000-0000-0000-0000-000000000003', 1795334400000, NULL);
INSERT INTO public.presence VALUES ('00000000-0000-0000-0000-000000000004', NULL, NULL);
INSERT INTO public.schema_version VALUES (1);
INSERT INTO public.sessions VALUES ('00000000-0000-0000-0000-000000000001', 2, 'READY', '{"\\x00903b35b33dc80d9058e53bea6d93acca59e2dbd81e4dd47a346422c51729f2"}', 1000000, NULL, '\x7365616c6564206f6e65', '{"hardware": "{\"gpu\":\"A100\"}", "provider": "gpu-box", "revision": 2, "upstream": "https://a-b.trycloudflare.com", "registered_at": 1795334400000, "credential_hash": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "provider_secret": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "provider_seen_at": 1795334400000}');
INSERT INTO public.sessions VALUES ('00000000-0000-0000-0000-000000000002', 3, 'LOCKED', '{"\\x17b9639c99eebb8bf27dc599a4ae762accf05843cd8d926270098df9403f6c83"}', 1000000, NULL, '\x7365616c6564206f6e65', '{"lock": {"cookie": "d7e83e28a04b537e64424546b14caf9b67bad2f28dabce68116e0d372319fa00", "address": "127.0.0.1", "taken_at": 1795334400002}, "hardware": "{\"gpu\":\"A100\"}", "provider": "gpu-box", "revision": 3, "upstream": "https://a-b.trycloudflare.com", "registered_at": 1795334400000, "credential_hash": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "provider_secret": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "provider_seen_at": 1795334400000}');
INSERT INTO public.sessions VALUES ('00000000-0000-0000-0000-000000000003', 4, 'RECYCLING', '{}', 1000000, NULL, '\x7365616c6564206f6e65', '{"since": 1795334400005, "hardware": "{\"gpu\":\"A100\"}", "provider": "gpu-box", "revision": 4, "upstream": "https://a-b.trycloudflare.com", "registered_at": 1795334400000, "credential_hash": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "provider_secret": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "provider_seen_at": 1795334400000}');
INSERT INTO public.sessions VALUES ('00000000-0000-0000-0000-000000000004', 4, 'REMOVED', '{}', 1000000, 1795334400006, '\x7365616c6564206f6e65', '{"clean": false, "since": 1795334400006, "hardware": "{\"gpu\":\"A100\"}", "provider": "gpu-box", "revision": 4, "upstream": "https://a-b.trycloudflare.com", "registered_at": 1795334400000, "credential_hash": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", "provider_secret": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "provider_seen_at": 1795334400000}');
INSERT INTO public.trail_marks VALUES ('base', 0, '\x0000000000000000000000000000000000000000000000000000000000000000', '\x0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO public.trail_marks VALUES ('head', 2, '\x3b9d4bbcb1070a2c9aa2f44127a933998dfeb7f03140ff1d7cbe44dcb691f6b7', '\x524ff0591d7b6b6447e3c09199f025b14f19f2acf918a122b758a51e9eaadcb6');
INSERT INTO public.usage_records VALUES ('865a6a51-edf4-8b09-ba33-4f95400d4688', '00000000-0000-0000-0000-000000000002', 'gpu-box', NULL, 1795334400002, NULL, 111, 222, 0);
INSERT INTO public.usage_records VALUES ('a7f9e41e-7d7f-8509-a86e-21421c9a9bad', '00000000-0000-0000-0000-000000000003', 'gpu-box', NULL, 1795334400002, 1795334400005, 1, 2, 0);
INSERT INTO public.usage_records VALUES ('15b0bf8c-af7b-8d7b-aefa-c17e0a82284b', '00000000-0000-0000-0000-000000000004', 'gpu-box', NULL, 1795334400002, 1795334400006, 0, 0, 0);
INSERT INTO public.webhook_cursors VALUES ('ops', 1);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (place);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_hash_key UNIQUE (hash);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ledgers
    ADD CONSTRAINT ledgers_pkey PRIMARY KEY (session);
ALTER TABLE ONLY public.presence
    ADD CONSTRAINT presence_pkey PRIMARY KEY (session);
ALTER TABLE ONLY public.probe
    ADD CONSTRAINT probe_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.trail_marks
    ADD CONSTRAINT trail_marks_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_pkey PRIMARY KEY (what);
ALTER TABLE ONLY public.usage_records
    ADD CONSTRAINT usage_records_pkey PRIMARY KEY (lock);
ALTER TABLE ONLY public.webhook_cursors
    ADD CONSTRAINT webhook_cursors_pkey PRIMARY KEY (target);
CREATE INDEX events_by_provider ON public.events USING btree (provider, place) WHERE (provider IS NOT NULL);
CREATE INDEX events_by_session ON public.events USING btree (session, place) WHERE (session IS NOT NULL);
CREATE INDEX events_by_time ON public.events USING btree (at);
CREATE INDEX sessions_by_removal ON public.sessions USING btree (removed_at) WHERE (removed_at IS NOT NULL);
CREATE INDEX sessions_by_token ON public.sessions USING gin (tokens);
CREATE INDEX usage_records_by_session ON public.usage_records USING btree (session, started_at, lock);
CREATE INDEX usage_records_by_start ON public.usage_records USING btree (started_at, lock);
ALTER TABLE ONLY public.ledgers
    ADD CONSTRAINT ledgers_session_fkey FOREIGN KEY (session) REFERENCES public.sessions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.presence
    ADD CONSTRAINT presence_session_fkey FOREIGN KEY (session) REFERENCES public.sessions(id) ON DELETE CASCADE;
