-- Writes that carried a request id, with their answers: who sends one again gets the first one's.

CREATE TABLE public.write_requests (
    request_id  text        COLLATE "C" PRIMARY KEY CHECK (request_id ~ '^[ -~]{1,128}$'),
    -- SHA-256 of the write's method and content. Like the answer it is missing only inside the transaction that does the
    -- write: nobody else ever sees it so.
    fingerprint bytea       CHECK (octet_length(fingerprint) = 32),
    answer      jsonb,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The oldest go first.
CREATE INDEX write_requests_at ON public.write_requests (at);
